use super::*;
use crate::store::tests::{Place, at};

#[tokio::test]
async fn the_first_pin_stays_and_only_repin_moves_it() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.pin_first("@a:hs", "one", at(0)).await.unwrap(), "one");
    assert_eq!(store.pin_first("@a:hs", "two", at(1)).await.unwrap(), "one");
    assert_eq!(store.keys("@a:hs").await.unwrap().pin.unwrap().by, By::FirstContact);
    store.repin("@a:hs", None, "two", "@b:hs", at(2)).await.unwrap();
    let pin = store.keys("@a:hs").await.unwrap().pin.unwrap();
    assert_eq!((pin.key.as_str(), pin.by), ("two", By::Accepted("@b:hs".to_owned())));
}

#[tokio::test]
async fn what_the_configuration_pins_stands_above_what_was_met_or_accepted() {
    let place = Place::new();
    let store = place.open();
    store.pin_first("@a:hs", "one", at(0)).await.unwrap();
    store.repin("@a:hs", None, "two", "@b:hs", at(1)).await.unwrap();
    store.pin_configured("@a:hs", "three", at(2)).await.unwrap();
    let pin = store.keys("@a:hs").await.unwrap().pin.unwrap();
    assert_eq!((pin.key.as_str(), pin.by, pin.since), ("three", By::Configuration, at(2)));
}
