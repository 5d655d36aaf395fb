/** The host's `http`; `rustmq module build` puts this file in the place of `http_host.js`. */

export { send } from 'rustmq:etl/http@0.1.5';
