/** Who answers requests: in a component the host; natively, a test says who with `answer`. */

let answers = null;
let made = 0;

/** From now on. */
export function answer(by) {
  answers = by;
}

/** How many requests were made so far. */
export const count = () => made;

export function send(requests) {
  if (answers === null) {
    throw new Error("nobody answers requests here: a test says who does with `http` of '#rustmq/testing'");
  }
  made += requests.length;
  return requests.map((request) => answers(request));
}
