use crate::message::Why;

use super::*;
use crate::cluster::{Cause, RolloutState, Trouble, Version, Workload};
use crate::config::Kind;

fn target() -> Target {
    Target {
        name: "web".to_owned(),
        label: "web <shop>".to_owned(),
        kind: Kind::Deployment,
        namespace: "apps".to_owned(),
        object: "web".to_owned(),
    }
}

fn said(report: &Report) -> String {
    let words = words(report);
    assert!(!words.html.contains("<shop>"), "{}", words.html);
    words.plain
}

#[test]
fn a_failure_says_whether_anything_may_have_changed() {
    let failed = |error, tried| said(&Report::Failed { target: target(), verb: Verb::Start, error, tried });
    assert!(failed(ClusterError::Timeout, false).ends_with("did not answer in time. Nothing was changed."));
    assert!(failed(ClusterError::Timeout, true).contains("nothing is certain"));
    assert!(failed(ClusterError::Failed("reset".to_owned()), true).contains("not certain"));
    assert!(failed(ClusterError::Unreachable("refused".to_owned()), true).contains("Nothing was changed."));
    assert!(failed(ClusterError::Forbidden("patch x".to_owned()), true).contains("Nothing was changed."));
    assert_eq!(
        failed(ClusterError::Pointless("Deployment web is paused".to_owned()), true),
        "❌ web <shop>: start failed: Deployment web is paused. Nothing was changed.",
        "nobody else has refused it"
    );
}

#[test]
fn what_is_so_already_is_told_as_it_is() {
    let already = |replicas, ready, left| said(&Report::AlreadySo { target: target(), replicas, ready, left });
    for (left, words) in [
        (Left::Counted(0), "⚫ web <shop> is already stopped; nothing was changed."),
        (
            Left::AtLeast(0),
            "⚫ web <shop> is already stopped (pods that still terminate I may not see); nothing was changed.",
        ),
        (Left::Counted(1), "🟡 web <shop> is stopping already; one pod left; nothing was changed."),
        (Left::AtLeast(2), "🟡 web <shop> is stopping already; 2 pods left; nothing was changed."),
    ] {
        assert_eq!(already(0, 0, left), words);
    }
    assert!(already(3, 1, Left::AtLeast(3)).contains("3 replicas already, 1 ready"));
    assert!(already(3, 3, Left::AtLeast(3)).contains("runs already, 3/3 ready"));
}

/// A workload that is as wanted.
fn workload(replicas: i32) -> Workload {
    Workload {
        desired: replicas,
        version: Version { uid: "one".to_owned(), generation: 1 },
        resource_version: None,
        current: replicas,
        ready: replicas,
        available: replicas,
        images: vec![],
        rollout: RolloutState::Complete,
        paused: false,
        on_delete: false,
        scaled_by: None,
        managed_by: None,
        since: None,
    }
}

fn status(workload: Workload, left: Left, troubles: Vec<Trouble>) -> String {
    let description =
        Description { workload, left, troubles: Some(troubles), events: None, owners: vec![], unseen: vec![] };
    said(&Report::Status { targets: vec![(target(), Ok(description))], now: Timestamp::from_second(7200).unwrap() })
}

#[test]
fn what_still_terminates_is_not_stopped() {
    for (left, words) in [
        (Left::Counted(0), "⚫ web <shop>: stopped"),
        (Left::AtLeast(0), "⚫ web <shop>: stopped (pods that still terminate I may not see)"),
        (Left::Counted(1), "🟡 web <shop>: stopping; one pod left"),
        (Left::AtLeast(2), "🟡 web <shop>: stopping; 2 pods left"),
    ] {
        assert_eq!(status(workload(0), left, vec![]), words);
    }
}

#[test]
fn since_when_is_said_of_what_it_is_known_of() {
    let since = Some(Timestamp::UNIX_EPOCH);
    let ready = Workload { since, ..workload(2) };
    let waiting = || RolloutState::Waiting("1 of 2 updated replicas available".to_owned());
    let down = Workload { ready: 0, available: 0, rollout: waiting(), ..ready.clone() };
    let rolling = Workload { rollout: waiting(), ..workload(2) };
    let pull = Trouble { object: "web-1".to_owned(), cause: Cause::ImagePull, message: String::new(), log: None };
    for (workload, troubles, words) in [
        (ready, vec![], "🟢 web <shop>: ready, 2/2 ready, 2 available, for 2 h"),
        (down.clone(), vec![], "🟡 web <shop>: getting there, 0/2 ready, 0 available, unavailable for 2 h"),
        (down, vec![pull.clone()], "🔴 web <shop>: in trouble, 0/2 ready, 0 available, unavailable for 2 h"),
        (rolling, vec![pull], "🔴 web <shop>: in trouble, 2/2 ready, 2 available"),
    ] {
        let told = status(workload, Left::Counted(2), troubles);
        assert_eq!(told.lines().next(), Some(words));
    }
}

#[test]
fn a_rollout_reads_from_underway_to_its_end() {
    let deed = Change::Scale { from: 0, to: 2 };
    let step = |progress| {
        let after = SignedDuration::from_secs(14);
        said(&Report::Rollout { target: target(), deed, progress, after, owners: vec!["Argo CD".to_owned()] })
    };
    assert!(step(Progress::Waiting { ready: 1, of: 2, troubles: vec![] }).contains("starting, 0 → 2; 1/2 ready."));
    let done = step(Progress::Done { ready: 2 });
    assert!(done.contains("is ready: 2/2 in 14 s.") && done.contains("also belong to Argo CD"), "{done}");
    assert!(step(Progress::Overruled { desired: 5, by: None }).contains("somebody else set 5 replicas meanwhile"));
    assert!(step(Progress::Expired { ready: 1, of: 2, troubles: vec![] }).contains("did not get there in 14 s"));
    let unseen = step(Progress::Unseen { error: ClusterError::Timeout });
    assert!(unseen.contains("Whether it got there in 14 s I cannot see, so nothing is certain"), "{unseen}");
    assert!(
        unseen.ends_with("the API server did not answer in time. I stopped watching; look at status web.")
            && !unseen.contains("ready"),
        "{unseen}"
    );
}

#[test]
fn no_number_of_pods_is_told_where_none_is_known() {
    let deed = Change::Scale { from: 2, to: 0 };
    let step = |progress| {
        let after = SignedDuration::from_secs(14);
        said(&Report::Rollout { target: target(), deed, progress, after, owners: vec![] })
    };
    let left = |of| step(Progress::Expired { ready: 0, of, troubles: vec![] });
    assert_eq!(
        step(Progress::NoneCounted),
        "⚫ web <shop> is stopped: no pod counted any more, after 14 s (pods that still terminate I may not see)."
    );
    assert_eq!(left(0), "❌ web <shop> did not get there in 14 s. I stopped watching.");
    assert_eq!(left(1), "❌ web <shop> did not get there in 14 s; one pod left. I stopped watching.");
    assert_eq!(left(2), "❌ web <shop> did not get there in 14 s; 2 pods left. I stopped watching.");
}

#[test]
fn after_an_outage_it_says_what_waited_and_whether_that_is_all() {
    let back = |waited, more| said(&Report::Back { after: SignedDuration::from_mins(12), waited, more });
    assert_eq!(back(0, false), "📡 Back after 12 min. Nothing waited.");
    assert_eq!(back(1, false), "📡 Back after 12 min. One message waited.");
    assert!(
        back(2, true).ends_with("2 messages waited. The homeserver does not give out every room yet: more may come.")
    );
    assert!(back(0, true).contains("Nothing has come yet."));
}

#[test]
fn whoever_has_forgotten_everybody_says_so_and_what_to_do() {
    let said = said(&Report::Forgotten);
    assert!(
        said.contains(
            "I meet everybody anew whom trust.pins does not name: compare their keys with trust before you go on."
        ),
        "{said}"
    );
}

#[test]
fn what_was_given_up_is_told_as_a_number_and_a_time() {
    let since = "2026-11-20T14:02:30Z".parse().unwrap();
    let said = |words| said(&Report::Lost(Loss { words, since }));
    assert!(said(1).contains("One message of 2026-11-20 14:02 UTC could not be said here and was given up."));
    assert!(
        said(12).contains("12 messages could not be said here and were given up, the first of 2026-11-20 14:02 UTC.")
    );
}

#[test]
fn every_reason_to_refuse_has_a_sentence_and_a_way_out() {
    for (why, part) in [
        (Why::PlaintextRoom, "not encrypted"),
        (Why::PlaintextEvent, "unencrypted"),
        (Why::MismatchedSender, "somebody else than its sender"),
        (Why::UnknownDevice, "unknown or was logged out"),
        (Why::NoIdentity, "Set one up"),
        (Why::UnsignedDevice { device: "D".to_owned() }, "Verify it"),
        (Why::IdentityChanged { fingerprint: "F".to_owned() }, "trust accept @anna:hs F"),
        (Why::NewDevice { device: "D".to_owned(), fingerprint: "F".to_owned() }, "trust accept @anna:hs D F"),
        (Why::ForwardedKey, "send it again"),
        (Why::Replayed, "played it again"),
    ] {
        let text = said(&Report::Refused { who: "@anna:hs".to_owned(), refusal: Refusal::Unproven(why.clone()) });
        assert!(text.contains(part), "{why:?}: {text}");
    }
}
