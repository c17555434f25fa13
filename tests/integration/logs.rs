//! The last words of a failing container in an answer: only where the configuration allows it, bounded and harmless.

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan};

/// What a container has written, that tries to be more than text.
fn log() -> String {
    let line = |number| format!("line {number} <b>bold</b> \u{1b}[31mred\u{1b}[0m &amp; @room\n");
    (0..500).map(line).collect::<String>() + "panic: no database <script>alert(1)</script>\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_of_a_failing_container_are_shown_where_the_configuration_allows_it() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet_with_logs(&log()).await;
        namespace.deployment("web", "crash", 0).await;
        let plan = Plan { more: "[kubernetes]\nshow_logs = true\n".to_owned(), ..Plan::of(&["web"]) };
        let house = House::build(&namespace, plan).await;
        let answer = house.ask_until("start", "panic: no database").await;
        let (body, html) = (answer.body(), answer.html());
        assert_eq!(body.matches("line ").count(), 9, "the last ten in all: {body}");
        assert!(body.contains("line 499") && !body.contains('\u{1b}'), "{body}");
        assert!(html.contains("<pre><code>") && html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
        assert!(!html.contains("<script>") && !html.contains("<b>bold"), "{html}");
        assert!(html.contains("&amp;amp;"), "as it was written: {html}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_neither_fills_the_room_nor_hides_the_last_one() {
    with_namespace(async |namespace| {
        let log = "é".repeat(15_000) + "\nthe end";
        let _kubelet = namespace.kubelet_with_logs(&log).await;
        namespace.deployment("web", "crash", 0).await;
        let plan = Plan { more: "[kubernetes]\nshow_logs = true\n".to_owned(), ..Plan::of(&["web"]) };
        let house = House::build(&namespace, plan).await;
        let answer = house.ask_until("start", "the end").await;
        assert!(answer.body().len() < 5000, "{} bytes", answer.body().len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_no_line_of_a_log_is_shown() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet_with_logs(&log()).await;
        namespace.deployment("web", "crash", 0).await;
        let house = House::build(&namespace, Plan::of(&["web"])).await;
        let answer = house.ask_until("start", "exit code 1").await;
        let status = house.ask("status").await;
        for said in [answer.body(), status.body()] {
            assert!(!said.contains("line ") && !said.contains("panic"), "{said}");
        }
    })
    .await;
}
