use super::*;
use crate::store::usage::Asked;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn seen(second: i64, percent: f64) -> Sample {
    Sample {
        bucket: "work/weekly_all".to_owned(),
        at: at(second),
        source: "push".to_owned(),
        percent,
        resets_at: Some(at(9000)),
    }
}

fn alert(name: &str, hold: Option<i64>) -> Alert {
    Alert {
        bucket: "work/weekly_all".to_owned(),
        cycle: at(0),
        name: name.to_owned(),
        stands: true,
        payload: "{}".to_owned(),
        draft: Some(Draft { txn: format!("t-{name}"), room: "!r".to_owned(), payload: "{}".to_owned() }),
        not_before: hold.map(at),
    }
}

fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("store.sqlite3")).unwrap()
}

#[tokio::test]
async fn an_alert_is_told_once_and_edited_once_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let learned = Learned { alerts: vec![alert("crossed-90", None)], ..Learned::default() };
    store.learn(learned.clone(), at(1)).await.unwrap();
    drop(store);
    // Killed after the transaction: the same sample is decided again.
    let store = open(&folder);
    store.learn(learned, at(2)).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), 1);
    let told = store.open_alerts("work/weekly_all").await.unwrap();
    let row = told[0].outbox.unwrap();
    store.try_parcel(row, false).await.unwrap();
    store.sent(row, "$event", at(3)).await.unwrap();
    let over = Over {
        bucket: "work/weekly_all".to_owned(),
        cycle: at(0),
        name: "crossed-90".to_owned(),
        speech: Some(Speech::Revise { row, room: "!r".to_owned(), txn: "t-over".to_owned(), payload: "{}".to_owned() }),
    };
    for second in [4, 5] {
        let learned = Learned { over: vec![over.clone()], ..Learned::default() };
        store.learn(learned, at(second)).await.unwrap();
    }
    assert_eq!(store.outbox_depth().await.unwrap(), 1);
    assert!(store.open_alerts("work/weekly_all").await.unwrap().is_empty());
}

#[tokio::test]
async fn an_alert_of_the_night_waits_for_the_morning() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let learned = Learned { alerts: vec![alert("crossed-50", Some(100))], ..Learned::default() };
    store.learn(learned, at(1)).await.unwrap();
    assert!(store.outgoing(at(99), 10).await.unwrap().is_empty());
    assert_eq!(store.next_outgoing_at().await.unwrap(), Some(at(100)));
    assert_eq!(store.outgoing(at(100), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_seen_is_kept_for_a_stated_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    assert_eq!(store.import_samples(vec![seen(0, 10.0), seen(300, 11.0), seen(0, 10.0)]).await.unwrap(), 2);
    assert_eq!(store.import_samples(vec![seen(300, 11.0)]).await.unwrap(), 0);
    assert_eq!(store.samples(Some("work/weekly_all".to_owned()), at(300)).await.unwrap(), [seen(300, 11.0)]);
    assert_eq!(store.prune_usage(at(300) + SAMPLES_KEPT).await.unwrap(), 1);
    assert_eq!(store.samples(None, at(0)).await.unwrap(), [seen(300, 11.0)]);
}

#[tokio::test]
async fn what_is_told_unasked_is_kept_and_is_no_answer_of_the_one_who_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let good = Asked { snapshot: Some("\"asked\"".to_owned()), ..Asked::default() };
    store.note_asked("work", good, at(0)).await.unwrap();
    for account in ["work", "desk"] {
        store.note_told(account, "\"told\"".to_owned()).await.unwrap();
    }
    let rows = [store.account("work").await.unwrap(), store.account("desk").await.unwrap()];
    assert!(rows.iter().all(|row| row.snapshot.as_deref() == Some("\"told\"")), "{rows:?}");
    assert_eq!(rows.map(|row| row.good_at), [Some(at(0)), None]);
}

#[tokio::test]
async fn the_record_of_windows_forecasts_and_alerts_is_kept_for_two_years() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let learned = |second: i64| Learned {
        closed: vec![Closed {
            bucket: "work/weekly_all".to_owned(),
            started_at: at(second - 600),
            ended_at: at(second),
            last: 90.0,
            exhausted_at: None,
            shape: "scheduled".to_owned(),
        }],
        foretold: vec![Foretold {
            bucket: "work/weekly_all".to_owned(),
            cycle: at(0),
            at: at(second),
            estimator: "shrunken".to_owned(),
            percent: 50.0,
            probability: 0.5,
            low: None,
            median: None,
            high: None,
        }],
        alerts: vec![alert(&format!("crossed-{second}"), None)],
        ..Learned::default()
    };
    for second in [0, 300] {
        store.learn(learned(second), at(second)).await.unwrap();
    }
    assert_eq!(store.prune_usage(at(0) + RECORD_KEPT).await.unwrap(), 0);
    assert_eq!(store.prune_usage(at(300) + RECORD_KEPT).await.unwrap(), 3);
    let kept = (store.closed_windows(None).await.unwrap(), store.forecasts().await.unwrap());
    assert_eq!((kept.0.len(), kept.1.len()), (1, 1));
    assert_eq!((kept.0[0].ended_at, kept.1[0].at), (at(300), at(300)));
    let told = store.open_alerts("work/weekly_all").await.unwrap();
    assert_eq!(told.iter().map(|told| told.name.as_str()).collect::<Vec<_>>(), ["crossed-300"]);
}

#[tokio::test]
async fn silence_ends_by_itself_and_can_be_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    assert_eq!(store.muted_until(at(0)).await.unwrap(), None);
    store.mute(at(100)).await.unwrap();
    assert_eq!(store.muted_until(at(99)).await.unwrap(), Some(at(100)));
    assert_eq!(store.muted_until(at(100)).await.unwrap(), None);
    store.mute(at(0)).await.unwrap();
    assert_eq!(store.muted_until(at(50)).await.unwrap(), None);
}
