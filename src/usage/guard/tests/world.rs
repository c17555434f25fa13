//! A small world: a journal and a cluster as the operator would keep them.

use super::*;

/// One row of the journal.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) event: Option<String>,
    pub(super) will: Will,
    pub(super) course: Course,
    pub(super) generation: i64,
}

/// A journal and a cluster with one target.
#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) states: BTreeMap<Key, State>,
    pub(super) rows: Vec<Row>,
    pub(super) replicas: i32,
    pub(super) generation: i64,
    /// The API server does not answer.
    pub(super) away: bool,
    pub(super) minute: i64,
    pub(super) views: BTreeMap<String, View>,
}

impl World {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let (settings, states) = (settings(rules), BTreeMap::new());
        Self {
            settings,
            states,
            rows: vec![],
            replicas: 2,
            generation: 1,
            away: false,
            minute: 0,
            views: BTreeMap::new(),
        }
    }

    pub(super) fn pasts(&self) -> BTreeMap<Key, Past> {
        let find = |event: Option<String>| self.rows.iter().position(|row| row.event.is_some() && row.event == event);
        let past = |key: &Key, state: &State| {
            let stop = find(state.stop_event(key));
            let since = stop.map_or(&[][..], |stop| &self.rows[stop..]);
            let others = since.iter().filter(|row| row.event.is_none() && row.course != Course::Open);
            Past {
                stop: stop.map(|stop| self.rows[stop].course),
                start: find(state.start_event(key)).map(|start| self.rows[start].course),
                since: others.map(|row| Deed { who: "@alice:hs".to_owned(), will: row.will }).collect(),
            }
        };
        self.states.iter().map(|(key, state)| (key.clone(), past(key, state))).collect()
    }

    /// One step of the guard, without the operator.
    pub(super) fn judge(&mut self) -> Vec<Action> {
        let pasts = self.pasts();
        let views: Vec<View> = self.views.values().cloned().collect();
        let actions = judge(&mut self.states, &pasts, &views, &self.settings, at(self.minute));
        for action in &actions {
            if let Action::Request(request) = action {
                let event = Some(request.event.clone());
                assert!(self.rows.iter().all(|row| row.event != event), "the same row twice");
                let generation = self.generation;
                self.rows.push(Row { event, will: request.will, course: Course::Open, generation });
            }
        }
        actions
    }

    /// The operator does what is open.
    pub(super) fn operate(&mut self) {
        for n in 0..self.rows.len() {
            if self.rows[n].course == Course::Open {
                self.rows[n].course = self.perform(n);
                self.rows[n].generation = self.generation;
            }
        }
    }

    pub(super) fn perform(&mut self, n: usize) -> Course {
        if self.away {
            return Course::Failed { ordered: false };
        }
        let wanted = match self.rows[n].will {
            Will::Stop => 0,
            Will::Start if self.rows[n].event.is_some() && !self.is_as_left(n) => return Course::Void,
            Will::Start if self.replicas > 0 => self.replicas,
            Will::Start => 2,
        };
        if wanted == self.replicas {
            return Course::Unmoved;
        }
        self.scale(wanted);
        Course::Moved
    }

    /// What the operator looks at before the guard may start something.
    pub(super) fn is_as_left(&self, n: usize) -> bool {
        let orders = self.rows[..n].iter().rev();
        let mut orders = orders.filter(|row| matches!(row.course, Course::Moved | Course::Unmoved));
        let own = orders.find(|row| row.event.is_none() || (row.will == Will::Stop && row.course == Course::Moved));
        own.is_some_and(|row| row.event.is_some() && row.generation == self.generation) && self.replicas == 0
    }

    pub(super) fn scale(&mut self, replicas: i32) {
        self.replicas = replicas;
        self.generation += 1;
    }

    pub(super) fn person(&mut self, will: Will) {
        self.rows.push(Row { event: None, will, course: Course::Open, generation: 0 });
        self.operate();
    }

    /// Five minutes later: these samples, one step of the guard, and the operator. Gives what was said.
    pub(super) fn poll(&mut self, samples: &[(&str, i64, f64)]) -> Vec<News> {
        self.minute += 5;
        for (bucket, cycle, percent) in samples {
            let view = view(bucket, *cycle, *percent, self.minute);
            self.views.insert((*bucket).to_owned(), view);
        }
        let actions = self.judge();
        self.operate();
        said(&actions)
    }
}
