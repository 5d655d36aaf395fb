//! Who answers the requests of a test: a function, kept by its thread.
//!
//! Called by: `http`, `testing`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::http::{Error, Request, Response};

type Answers = Rc<dyn Fn(&Request) -> Result<Response, Error>>;

thread_local! {
    static ANSWERS: RefCell<Option<Answers>> = const { RefCell::new(None) };
    /// Whether any were made.
    static MADE: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn answer(answers: impl Fn(&Request) -> Result<Response, Error> + 'static) {
    ANSWERS.set(Some(Rc::new(answers)));
}

/// Whether requests were made on this thread since the last time.
pub(crate) fn made() -> bool {
    MADE.take()
}

pub(crate) fn send(requests: &[Request]) -> Vec<Result<Response, Error>> {
    MADE.set(true);
    let answers = ANSWERS.with_borrow(Clone::clone);
    let Some(answers) = answers else {
        panic!("nobody answers the module's requests: say who does with `rustmq::testing::http`");
    };
    let named = |request: &Request| {
        let mut answer = answers(request)?;
        if answer.url.is_empty() {
            answer.url.clone_from(&request.url);
        }
        Ok(answer)
    };
    requests.iter().map(named).collect()
}
