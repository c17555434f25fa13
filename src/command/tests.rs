use super::*;

fn names(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

fn at(place: Address, targets: &str, text: &str) -> Reading {
    read(text, Grammar { targets: &names(targets), prefix: "!ph" }, place)
}

fn start(targets: &str, replicas: Option<u32>) -> Reading {
    Reading::Command(Command::Start { targets: names(targets), replicas, all: false })
}

#[test]
fn case_spaces_and_commas_do_not_matter() {
    for text in ["start web 2", "  START   Web  2 ", "Start, web, 2", "on web 2", "!ph start web 2", "!PH ON we 2"] {
        assert_eq!(at(Address::Bare, "web db", text), start("web", Some(2)), "{text}");
    }
}

#[test]
fn with_one_target_its_name_may_be_left_out() {
    assert_eq!(at(Address::Bare, "web", "start"), start("web", None));
    assert_eq!(at(Address::Bare, "web", "start 3"), start("web", Some(3)));
    assert_eq!(at(Address::Bare, "web", "off"), Reading::Command(Command::Stop { targets: names("web"), all: false }));
    assert_eq!(at(Address::Bare, "web db", "stop"), Reading::Mistake(Mistake::MissingTarget(Verb::Stop)));
}

#[test]
fn a_target_is_known_by_a_unique_beginning_and_an_exact_name_wins() {
    assert_eq!(at(Address::Bare, "web web-admin db", "start web"), start("web", None));
    assert_eq!(at(Address::Bare, "web web-admin db", "start d web-"), start("db web-admin", None));
    assert_eq!(
        at(Address::Bare, "web-a web-b", "start web"),
        Reading::Mistake(Mistake::AmbiguousTarget { word: "web".to_owned(), fits: names("web-a web-b") })
    );
}

#[test]
fn several_targets_or_all() {
    assert_eq!(
        at(Address::Bare, "web db", "stop all"),
        Reading::Command(Command::Stop { targets: names("web db"), all: true })
    );
    assert_eq!(at(Address::Bare, "web db", "start web db web 4"), start("web db", Some(4)));
    assert_eq!(at(Address::Bare, "web db", "status"), Reading::Command(Command::Status(vec![])));
}

#[test]
fn a_target_that_is_a_number_is_a_name_first() {
    assert_eq!(at(Address::Bare, "7 web", "start 7"), start("7", None));
    assert_eq!(
        at(Address::Bare, "7 web", "start 7 7"),
        Reading::Command(Command::Start { targets: names("7"), replicas: None, all: false })
    );
}

#[test]
fn a_wrong_number_is_told() {
    for word in ["-1", "2x", "99999999999"] {
        assert_eq!(
            at(Address::Bare, "web", &format!("start web {word}")),
            Reading::Mistake(Mistake::BadNumber(word.to_owned()))
        );
    }
}

#[test]
fn near_misses_carry_what_was_meant() {
    assert_eq!(
        at(Address::Bare, "web", "statsu"),
        Reading::Mistake(Mistake::UnknownVerb { word: "statsu".to_owned(), meant: Some(Verb::Status) })
    );
    assert_eq!(
        at(Address::Bare, "gateway db", "stop gatewya"),
        Reading::Mistake(Mistake::UnknownTarget { word: "gatewya".to_owned(), meant: Some("gateway".to_owned()) })
    );
    assert_eq!(
        at(Address::Mentioned, "web", "!ph make coffee"),
        Reading::Mistake(Mistake::UnknownVerb { word: "make".to_owned(), meant: None })
    );
}

#[test]
fn talk_is_left_in_peace() {
    for text in ["", "hello", "good morning all", "start of the week was really awful", "stop it you two, both of you"]
    {
        assert_eq!(at(Address::Bare, "web db", text), Reading::Talk, "{text}");
    }
}

#[test]
fn in_a_room_of_many_changes_need_the_prefix_and_reading_must_be_the_whole_text() {
    assert_eq!(at(Address::Overheard, "web", "stop"), Reading::Talk);
    assert_eq!(at(Address::Overheard, "web", "restart web"), Reading::Talk);
    assert_eq!(at(Address::Overheard, "web", "status web"), Reading::Command(Command::Status(names("web"))));
    assert_eq!(at(Address::Overheard, "web", "status of the project"), Reading::Talk);
    assert_eq!(
        at(Address::Overheard, "web", "!ph stop"),
        Reading::Command(Command::Stop { targets: names("web"), all: false })
    );
    assert_eq!(at(Address::Overheard, "web", "!phstop"), Reading::Talk);
    assert_eq!(at(Address::Overheard, "web", "!ph"), Reading::Command(Command::Help(None)));
}

#[test]
fn in_an_answer_commands_and_their_near_misses_count_and_thanks_do_not() {
    for text in ["", "thanks", "thanks a lot", "on it", "restart worked", "stop it", "start in 5 minutes", "help me"] {
        assert_eq!(at(Address::Answering, "web db", text), Reading::Talk, "{text}");
    }
    assert_eq!(
        at(Address::Answering, "web db", "stop web"),
        Reading::Command(Command::Stop { targets: names("web"), all: false })
    );
    for text in ["statsu", "version?", "stop wbe", "start"] {
        assert!(matches!(at(Address::Answering, "web db", text), Reading::Mistake(_)), "{text}");
    }
    assert!(matches!(at(Address::Answering, "web db", "!ph make coffee"), Reading::Mistake(_)), "the prefix says it");
}

#[test]
fn a_fingerprint_may_be_written_in_groups() {
    let key = "AbCd".repeat(10) + "xyz";
    let grouped = "AbCd ".repeat(10) + "xyz";
    assert_eq!(
        at(Address::Bare, "web", &format!("trust accept @bob:hs {grouped}")),
        // Eleven groups: long texts are talk only where they are mistakes.
        Reading::Command(Command::Accept { user: "@bob:hs".to_owned(), device: None, fingerprint: key.clone() })
    );
    assert_eq!(
        at(Address::Bare, "web", &format!("trust accept @bob:hs JLAFKJWSCS {key}")),
        Reading::Command(Command::Accept {
            user: "@bob:hs".to_owned(),
            device: Some("JLAFKJWSCS".to_owned()),
            fingerprint: key
        })
    );
    assert_eq!(at(Address::Bare, "web", "trust accept @bob:hs short"), Reading::Mistake(Mistake::BadTrust));
}

#[test]
fn surplus_words_are_told() {
    assert_eq!(
        at(Address::Bare, "web", "version now"),
        Reading::Mistake(Mistake::Surplus { verb: Verb::Version, word: "now".to_owned() })
    );
}

#[test]
fn every_verb_reads_itself() {
    for verb in Verb::ALL {
        assert_eq!(Verb::parse(verb.word()), Some(verb));
        assert!(verb.syntax().starts_with(verb.word()));
    }
}

#[test]
fn a_mistake_names_no_target_but_those_that_are_known() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let unknown =
        |meant: Option<&str>| Mistake::UnknownTarget { word: "d".to_owned(), meant: meant.map(str::to_owned) };
    let ambiguous = |fits: &[&str]| Mistake::AmbiguousTarget { word: "d".to_owned(), fits: names(fits) };
    let known = names(&["web", "docs"]);
    assert_eq!(unknown(Some("db")).among(&known), unknown(None));
    assert_eq!(unknown(Some("docs")).among(&known), unknown(Some("docs")));
    assert_eq!(ambiguous(&["db", "docs"]).among(&known), ambiguous(&["docs"]));
    assert_eq!(ambiguous(&["db", "data"]).among(&known), unknown(None));
    assert_eq!(Mistake::BadTrust.among(&known), Mistake::BadTrust);
}
