//! What the guard wants and says, from what is known. Pure: the time is passed in, and nothing is sent or stored here.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Settings;
use super::deed::{Course, Past, Will};
use super::notice::{Action, Keeper, News, Notice, Reason, Request, gather};
use super::rule::{Rule, View};
use super::state::{Asked, Key, Meddled, Seen, State, account_of};
use crate::usage::bucket::Bucket;

/// A request that failed is made again after one interval, then two, four and so on; after so many doublings the pause
/// stays as it is.
const DOUBLINGS: u32 = 5;

/// Decides for every rule and target, and changes the states accordingly. `pasts`: what the journal says, by rule and
/// target; `views`: every bucket of which something is known.
///
/// The caller stores states and actions in one transaction. The same views again give no action, until the journal has
/// something new.
pub fn judge(
    states: &mut BTreeMap<Key, State>,
    pasts: &BTreeMap<Key, Past>,
    views: &[View],
    settings: &Settings,
    now: Timestamp,
) -> Vec<Action> {
    let mut sight = Sight { views, settings, now, actions: Vec::new() };
    sight.release(states, pasts);
    for rule in &settings.rules {
        for target in rule.targets.iter().filter(|target| settings.targets.contains_key(*target)) {
            let key = Key { rule: rule.name.clone(), target: target.clone() };
            let past = pasts.get(&key).cloned().unwrap_or_default();
            let unprovable = sight.unprovable(target, states);
            sight.hold(rule, &key, states.entry(key.clone()).or_default(), (&past, unprovable));
        }
    }
    for target in settings.targets.keys() {
        sight.give_back(target, states, pasts);
    }
    states.values_mut().for_each(State::forget);
    states.retain(|_, state| *state != State::default());
    gather(sight.actions)
}

/// Everything that is looked at, and what comes of it.
struct Sight<'a> {
    views: &'a [View],
    settings: &'a Settings,
    now: Timestamp,
    actions: Vec<Action>,
}

impl<'a> Sight<'a> {
    /// Lets go of what the configuration does not let the guard hold any more.
    fn release(&mut self, states: &mut BTreeMap<Key, State>, pasts: &BTreeMap<Key, Past>) {
        for (key, state) in states.iter_mut() {
            let rule =
                self.settings.rules.iter().find(|rule| rule.name == key.rule && rule.targets.contains(&key.target));
            let known = rule.filter(|_| self.settings.targets.contains_key(&key.target));
            let watches = |rule: &Rule, bucket: &String| {
                let Ok(bucket) = bucket.parse::<Bucket>();
                rule.watches(&bucket) && self.settings.is_watched(&bucket.account)
            };
            if let Some(past) = pasts.get(key) {
                state.learn(past);
            }
            // What it has stopped, else what it is about to: other buckets that it watched may go without a word.
            let under_way = state.stop.as_ref().filter(|stop| !stop.settled);
            let stopped = state.own.as_ref().or(under_way).map(|asked| asked.bucket.clone());
            let keeps = known.is_some_and(|rule| rule.acts && stopped.is_none_or(|bucket| watches(rule, &bucket)));
            if !keeps {
                if let Some(past) = pasts.get(key) {
                    state.yield_to(past);
                }
                // What it would have done goes on to be told.
                let would = state.would.take();
                if let Some(left) = state.let_go() {
                    self.say(key, &left.bucket, left.cycle, News::Released);
                }
                state.would = would;
            }
            match known {
                None => *state = State::default(),
                Some(rule) => {
                    state.claims.retain(|bucket, _| watches(rule, bucket));
                    if rule.acts {
                        // What it only said so far, it does now.
                        if state.would.take().is_some() {
                            state.claims.values_mut().for_each(|claim| claim.asked = None);
                        }
                    } else {
                        (state.stop, state.start) = (None, None);
                    }
                }
            }
        }
    }

    /// Looks at one rule and one target: whether it must be down, and whether somebody else has a say.
    /// `unprovable` is what holds the target already and cannot be proven to be over.
    fn hold(&mut self, rule: &Rule, key: &Key, state: &mut State, (past, unprovable): (&Past, Option<String>)) {
        state.learn(past);
        for meddled in state.yield_to(past) {
            match meddled {
                Meddled::HandedOver { who, own } => self.say(key, &own.bucket, own.cycle, News::HandedOver { who }),
                Meddled::Overridden { who, claims } => {
                    let end = |bucket: &str| self.view(bucket).and_then(|view| view.resets_at);
                    let Some((bucket, cycle)) = claims.iter().max_by_key(|(bucket, _)| end(bucket)) else { continue };
                    self.say(key, bucket, *cycle, News::Overridden { who, until: end(bucket) });
                }
            }
        }
        let fresh: Vec<&View> =
            self.views.iter().filter(|view| rule.watches(&view.bucket) && !self.is_stale(view)).collect();
        let Seen { due, mut switched } = state.see(rule, &fresh, |account| self.settings.is_asked(account));
        switched.extend(state.drop_held(|bucket| self.is_gone(bucket)));
        let vanished = state.drop_held(|bucket| self.has_vanished(bucket));
        // Neither is a reset: nothing says that there is room for what was stopped.
        let switched = switched.first().map(|bucket| (bucket, News::Switched));
        let vanished = vanished.first().map(|bucket| (bucket, News::Vanished));
        if let Some((bucket, news)) = switched.or(vanished).filter(|_| !state.holds())
            && let Some(left) = state.let_go()
        {
            self.say(key, bucket, left.cycle, news);
        }
        self.tell_silence(rule, key, state);
        if due.is_empty() {
            self.try_again(rule, key, state, past, &fresh);
        } else if !(rule.acts && past.stop == Some(Course::Open)) {
            // Of two stops at once the second would find nothing to stop, and hide that the first was the guard's.
            self.ask_stop(rule, key, state, &due, unprovable);
        }
    }

    fn ask_stop(&mut self, rule: &Rule, key: &Key, state: &mut State, due: &[String], unprovable: Option<String>) {
        let mut reasons = Vec::new();
        let mut first = None;
        for bucket in due {
            let (Some(claim), Some(view)) = (state.claims.get_mut(bucket), self.view(bucket)) else { continue };
            claim.asked = claim.held;
            reasons.push(reason(rule, view));
            first = first.or(claim.held.map(|cycle| Asked::first(bucket, cycle, self.now)));
        }
        let Some(asked) = first else { return };
        let (bucket, cycle) = (asked.bucket.clone(), asked.cycle);
        if rule.acts {
            let unprovable = unprovable.or_else(|| due.iter().find(|bucket| !self.is_asked(bucket)).cloned());
            self.say(key, &bucket, cycle, News::Stops { reasons, unprovable });
            self.want(key, &asked, Will::Stop);
            state.stop = Some(asked);
        } else {
            self.say(key, &bucket, cycle, News::WouldStop(reasons));
            state.would = Some(asked);
        }
    }

    /// Asks again for a stop that failed, where the bucket still holds the target and its data is fresh.
    fn try_again(&mut self, rule: &Rule, key: &Key, state: &mut State, past: &Past, fresh: &[&View]) {
        let Some(stop) = state.stop.as_ref().filter(|_| rule.acts && is_failed(past.stop)) else { return };
        let held = state.claims.get(&stop.bucket).and_then(|claim| claim.held) == Some(stop.cycle);
        if held && self.may_try(stop) && fresh.iter().any(|view| view.bucket.to_string() == stop.bucket) {
            let again = stop.again(self.now);
            self.want(key, &again, Will::Stop);
            state.stop = Some(again);
        }
    }

    /// Starts what the guard has stopped, where nothing keeps the target down; else says what does.
    fn give_back(&mut self, target: &str, states: &mut BTreeMap<Key, State>, pasts: &BTreeMap<Key, Past>) {
        let naming = |rule: &&Rule| rule.targets.iter().any(|name| name == target);
        let rules: Vec<&Rule> = self.settings.rules.iter().filter(naming).collect();
        let (acting, observing): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| rule.acts);
        let [keepers, observers] = [&acting, &observing].map(|rules| self.keepers(target, rules, states));
        if keepers.is_empty() && observers.is_empty() {
            for (key, state) in states.iter_mut().filter(|(key, _)| key.target == target) {
                if let Some(would) = state.would.take() {
                    let bucket = state.freed.as_ref().unwrap_or(&would.bucket);
                    self.say(key, bucket, would.cycle, News::WouldStart);
                }
            }
        }
        // Where several rules have stopped it one after the other, the last is the one that holds.
        let last = states
            .iter()
            .filter(|(key, _)| key.target == target)
            .filter_map(|(key, state)| Some((state.own.as_ref()?.at, key.clone())))
            .max();
        for (key, state) in states.iter_mut().filter(|(key, _)| key.target == target) {
            let is_last = last.as_ref().is_some_and(|(_, last)| last == key);
            match (is_last, keepers.is_empty()) {
                (true, true) => self.ask_start(key, state, pasts.get(key)),
                (true, false) => self.tell_kept(key, state, pasts.get(key), &keepers),
                (false, true) => (state.own, state.start) = (None, None),
                (false, false) => {}
            }
        }
    }

    /// What keeps a target down: buckets that hold it, whether or not they are heard of, and accounts that should answer
    /// and do not. A workstation that sleeps keeps down what it held before, and nothing else: nobody is there to ask, and
    /// it may sleep for days.
    fn keepers(&self, target: &str, rules: &[&Rule], states: &BTreeMap<Key, State>) -> Vec<Keeper> {
        let mut keepers = Vec::new();
        for rule in rules {
            let name = || rule.name.clone();
            let state = states.get(&Key { rule: name(), target: target.to_owned() });
            for bucket in state.into_iter().flat_map(State::holding) {
                let view = self.view(bucket);
                let until = view.and_then(|view| view.resets_at).filter(|at| *at > self.now);
                let silent_since = view.filter(|view| self.is_stale(view)).map(|view| view.at);
                let provable = view.is_none_or(|view| self.settings.is_asked(&view.bucket.account));
                let bucket = bucket.clone();
                keepers.push(Keeper::Holds { rule: name(), bucket, until, silent_since, provable });
            }
            for (missed, since) in self.missed(rule) {
                let holds = |state: &State| state.holds_for(&missed) || state.holding().any(|held| *held == missed);
                if !state.is_some_and(holds) {
                    keepers.push(Keeper::Silent { rule: name(), account: missed, since });
                }
            }
        }
        keepers
    }

    /// Says once why what the guard has stopped is not given back, though the bucket for which that was done has let go. What
    /// comes to keep it down later speaks for itself when it comes.
    fn tell_kept(&mut self, key: &Key, state: &mut State, past: Option<&Past>, keepers: &[Keeper]) {
        let Some(own) = state.outlived().filter(|_| !state.kept && state.start.is_none()) else { return };
        // It may run: the stop was ordered, and whether it arrived nobody knows.
        let is_last = state.stop.as_ref().is_some_and(|stop| stop.is_of(own));
        if is_last && is_failed(past.and_then(|past| past.stop)) {
            return;
        }
        let bucket = own.bucket.clone();
        state.kept = true;
        self.say(key, &bucket, self.now, News::Kept(keepers.to_vec()));
    }

    fn ask_start(&mut self, key: &Key, state: &mut State, past: Option<&Past>) {
        let Some(own) = &state.own else { return };
        // It may still be on its way: what is not stopped cannot be started.
        if past.is_some_and(|past| past.stop == Some(Course::Open)) {
            return;
        }
        match &state.start {
            None => {
                let asked = Asked { attempt: 0, at: self.now, ..own.clone() };
                self.say(key, state.freed.as_ref().unwrap_or(&asked.bucket), asked.cycle, News::Starts);
                self.want(key, &asked, Will::Start);
                state.start = Some(asked);
            }
            Some(start) if is_failed(past.and_then(|past| past.start)) && self.may_try(start) => {
                let again = start.again(self.now);
                self.want(key, &again, Will::Start);
                state.start = Some(again);
            }
            Some(_) => {}
        }
    }

    /// Says once that nothing is heard: of an account, or of a bucket that holds the target.
    fn tell_silence(&mut self, rule: &Rule, key: &Key, state: &mut State) {
        let mut silences = self.missed(rule);
        // A workstation sleeps every night. That matters while it holds a target, and once in that time.
        let pushed = self.accounts(rule).into_iter().filter(|account| !self.settings.is_asked(account));
        for account in pushed.filter(|account| state.holds_for(account)) {
            let since = state.silences.get(&account).copied().or_else(|| self.silent_since(&account));
            silences.extend(since.map(|since| (account, since)));
        }
        for bucket in state.holding() {
            let unheard = |view: &&View| self.is_stale(view) && !self.is_named(view);
            let Some(view) = self.view(bucket).filter(unheard) else { continue };
            if self.settings.is_asked(&view.bucket.account) && !silences.contains_key(&view.bucket.account) {
                silences.insert(bucket.clone(), view.at);
            }
        }
        for (name, since) in &silences {
            if !state.silences.contains_key(name) {
                self.say(key, name, *since, News::Silent { grave: rule.acts && self.is_asked(name) });
            }
        }
        state.silences = silences;
    }

    /// What a rule should hear of and does not, with its last sample: accounts that are asked and do not answer, and limits of
    /// which only the answer would tell while the account's workstations go on to push others.
    fn missed(&self, rule: &Rule) -> BTreeMap<String, Timestamp> {
        let asked = self.accounts(rule).into_iter().filter(|account| self.settings.is_asked(account));
        let silent = asked.filter_map(|account| Some((self.silent_since(&account)?, account)));
        silent.map(|(since, account)| (account, since)).chain(self.unheard(rule)).collect()
    }

    /// The accounts that a rule watches, as far as anything is known of them.
    fn accounts(&self, rule: &Rule) -> Vec<String> {
        let mut accounts: Vec<String> = self
            .views
            .iter()
            .filter(|view| rule.watches(&view.bucket))
            .map(|view| view.bucket.account.clone())
            .collect();
        accounts.sort();
        accounts.dedup();
        accounts
    }

    /// The last sample of an account, if that is too long ago. One bucket alone may vanish while the account is heard.
    fn silent_since(&self, account: &str) -> Option<Timestamp> {
        let last = self.views.iter().filter(|view| view.bucket.account == account).map(|view| view.at).max()?;
        self.settings.is_stale(last, self.now).then_some(last)
    }

    /// Limits that a rule watches and nobody tells of, while the account's workstations push others: the source that is asked
    /// for them does not answer. Where it does, a limit that it names no more is none.
    fn unheard(&self, rule: &Rule) -> Vec<(String, Timestamp)> {
        let is_silent = |account: &str| {
            let answers = self.views.iter().filter(|view| view.bucket.account == account);
            let last = answers.filter_map(|view| view.answered_at).max();
            self.silent_since(account).is_none() && last.is_some_and(|at| self.settings.is_stale(at, self.now))
        };
        let watched = self.views.iter().filter(|view| rule.watches(&view.bucket) && self.is_stale(view));
        let asked = watched.filter(|view| self.settings.is_asked(&view.bucket.account));
        asked.filter(|view| is_silent(&view.bucket.account)).map(|view| (view.bucket.to_string(), view.at)).collect()
    }

    /// A bucket of which nothing is known any more, of an account that is heard: it was another's, which is gone.
    fn is_gone(&self, bucket: &str) -> bool {
        let account = account_of(bucket);
        let is_heard = |view: &View| view.bucket.account == account && !self.is_stale(view);
        self.view(bucket).is_none() && self.views.iter().any(is_heard)
    }

    /// A limit that the answers name no more, a day after its reset should have come: it holds nothing, and nobody will ever
    /// say that it was reset. A single answer may miss a limit that it could not read.
    fn has_vanished(&self, bucket: &str) -> bool {
        const GRACE: SignedDuration = SignedDuration::from_hours(24);
        let account = account_of(bucket);
        let answers = |view: &View| view.bucket.account == account && self.is_named(view);
        let is_over = |view: &View| view.resets_at.unwrap_or(view.at) + GRACE <= self.now;
        let is_named_no_more = |view: &View| view.named_at.is_some() && !self.is_named(view) && is_over(view);
        self.is_asked(bucket) && self.view(bucket).is_some_and(is_named_no_more) && self.views.iter().any(answers)
    }

    /// A bucket that holds a target, by a rule that acts, and of which workstations alone tell.
    fn unprovable(&self, target: &str, states: &BTreeMap<Key, State>) -> Option<String> {
        let acts = |key: &Key| self.settings.rules.iter().any(|rule| rule.acts && rule.name == key.rule);
        let holding = states.iter().filter(|(key, _)| key.target == target && acts(key));
        holding.flat_map(|(_, state)| state.holding()).find(|bucket| !self.is_asked(bucket)).cloned()
    }

    /// Whether somebody is asked for the account of a bucket: else its workstations push, and nothing proves a reset.
    fn is_asked(&self, bucket: &str) -> bool {
        self.settings.is_asked(account_of(bucket))
    }

    /// Whether a source that is asked has named it lately, if only in a sample that proves nothing yet.
    fn is_named(&self, view: &View) -> bool {
        view.named_at.is_some_and(|at| !self.settings.is_stale(at, self.now))
    }

    fn is_stale(&self, view: &View) -> bool {
        self.settings.is_stale(view.at, self.now)
    }

    fn view(&self, bucket: &str) -> Option<&'a View> {
        self.views.iter().find(|view| view.bucket.to_string() == bucket)
    }

    fn may_try(&self, asked: &Asked) -> bool {
        let pause = self.settings.interval * (1_i32 << asked.attempt.min(DOUBLINGS));
        let waited = self.now.duration_since(asked.at);
        // A clock that was ahead and was set back makes nobody wait.
        waited >= pause || -waited > pause
    }

    fn want(&mut self, key: &Key, asked: &Asked, will: Will) {
        let request = Request { event: asked.event(key, will), target: key.target.clone(), will };
        self.actions.push(Action::Request(request));
    }

    fn say(&mut self, key: &Key, bucket: &str, cycle: Timestamp, news: News) {
        let label =
            self.settings.targets.get(&key.target).map_or_else(|| key.target.clone(), |target| target.label.clone());
        let targets = vec![(key.target.clone(), label)];
        let notice = Notice { rule: key.rule.clone(), targets, bucket: bucket.to_owned(), cycle, news };
        self.actions.push(Action::Say(notice));
    }
}

fn is_failed(course: Option<Course>) -> bool {
    matches!(course, Some(Course::Failed { .. }))
}

fn reason(rule: &Rule, view: &View) -> Reason {
    Reason {
        bucket: view.bucket.to_string(),
        percent: view.percent,
        probability: view.probability.filter(|_| rule.probability.is_some()),
        resets_at: view.resets_at,
    }
}
