/** Of a module that keeps no state: `rustmq module build` puts `state_component.js` in its place for others. */

export const kept = null;
