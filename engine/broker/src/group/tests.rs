//! Groups over a real store.
