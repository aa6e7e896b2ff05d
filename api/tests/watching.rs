//! What a restored API server asks of those who watch it.

use std::sync::Mutex;

use futures::{StreamExt as _, stream};

#[test]
fn after_an_error_everything_is_listed_again_and_without_one_nothing_is() {
    let lists = Mutex::new(vec![
        vec![Ok("list 1"), Ok("change"), Err("gone"), Ok("never told")],
        vec![Err("refused")],
        vec![Ok("list 3"), Ok("change")],
    ]);
    let watch = api::begin_anew(|| stream::iter(lists.lock().unwrap().remove(0)));
    let told: Vec<_> = futures::executor::block_on(watch.collect());
    assert_eq!(
        told,
        [
            Ok("list 1"),
            Ok("change"),
            Err("gone"),
            Err("refused"),
            Ok("list 3"),
            Ok("change"),
        ]
    );
}
