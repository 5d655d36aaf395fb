/** What state costs from JavaScript: counts the rows of each key, and passes none on. */

import { map } from '#rustmq';

export default map(
  (value, { key }, state) => {
    state.put(key, 1 + (state.get(key) ?? 0));
    return null;
  },
  { value: 'bytes', stateSchema: 1 },
);
