//! A program in the provider's place: the daemon runs it, and what it prints is told in a room.

use serde_json::json;

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::leash::Folder;
use crate::support::subscribed::{answer, week};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_prints_is_armed_and_told_in_the_room() {
    let folder = Folder::new("pilothouse-program-");
    let file = folder.join("usage.json");
    // As the CLI prints it.
    let printed = json!({ "rate_limits": answer(96.0, week()) });
    std::fs::write(&file, printed.to_string()).expect("written");
    let more = format!(
        "[usage]\narmed = true\ntimezone = \"UTC\"\n[[usage.accounts]]\nname = \"work\"\nsource = \"command\"\n\
         command = [\"cat\", {:?}]\nenvironment = {{ PATH = \"/usr/bin:/bin\" }}\n",
        file.display().to_string()
    );
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, Plan { more, ..Plan::of(&["web"]) }).await;
        house.ask("version").await;
        let armed = house.person.expect(SOON, |event| event.body().starts_with("👀 Armed")).await;
        assert!(armed.encrypted && armed.body().contains("▓▓▓▓▓▓▓▓▓░ week 96 %"), "{}", armed.body());
        house.person.expect(SOON, |event| event.body().contains("week is over 95 %")).await;
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("▓▓▓▓▓▓▓▓▓░ week 96 %"), "{}", shown.body());
        // The CLI asks the provider, so it is not run sooner than the provider may be asked.
        let later = house.ask("usage now").await;
        assert!(later.body().contains("may not be asked before"), "{}", later.body());
    })
    .await;
}
