//! The life of an engine as its supervisor sees it: one enum, one pure transition function.
//!
//! ```text
//! starting -> serving -> draining -> ending -> gone        any but gone -> killing -> gone
//! ```
//! Owns: which step follows which. Must not know: processes, clocks, sockets.

/// Where the engine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Children run, the engine has not said that it is ready.
    Starting,
    /// Calls are served; whoever dies is restarted.
    Serving,
    /// The engine finishes what is in flight.
    Draining,
    /// The engine is gone, the funclets end their containers.
    Ending,
    /// Everything left was sent SIGKILL.
    Killing,
    /// No child is left.
    Gone,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "the start",
            Self::Serving => "serving",
            Self::Draining => "finishing what is in flight",
            Self::Ending => "ending the containers",
            Self::Killing => "killing what is left",
            Self::Gone => "nothing",
        })
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The engine said that it is ready.
    Ready,
    /// Somebody asked for a stop.
    Stop,
    /// The engine's process is gone.
    EngineGone,
    /// No process is left.
    AllGone,
    /// The phase took too long.
    Overdue,
    /// A child cannot be kept alive.
    Hopeless,
}

/// What has to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    /// Say that calls are served.
    Announce,
    /// Start the engine again.
    RestartEngine,
    /// Send SIGKILL to an engine that was started again and does not come up.
    KillEngine,
    /// Tell the engine to finish what is in flight.
    StopEngine,
    /// Tell the funclets to end their containers.
    StopFunclets,
    /// Send SIGKILL to all that is left.
    KillAll,
}

/// The next phase, and what to do on the way to it.
pub(crate) fn transition(phase: Phase, input: Input) -> (Phase, Action) {
    use {Action as A, Input as I, Phase as P};
    assert!(phase != P::Gone, "nothing happens to an engine that is gone");
    match (phase, input) {
        (_, I::AllGone) => (P::Gone, A::Nothing),
        (P::Starting, I::Ready) => (P::Serving, A::Announce),
        // A restarted engine is ready again, or is not in time; its death then leads to the next try.
        (P::Serving, I::Ready) => (P::Serving, A::Nothing),
        (P::Serving, I::Overdue) => (P::Serving, A::KillEngine),
        (P::Starting, I::Stop) => (P::Killing, A::KillAll),
        (P::Serving, I::Stop) => (P::Draining, A::StopEngine),
        // A second request means at once.
        (P::Draining | P::Ending, I::Stop) => (P::Killing, A::KillAll),
        // An engine that cannot start at all will not do better the next time.
        (P::Starting, I::EngineGone) => (P::Killing, A::KillAll),
        (P::Serving, I::EngineGone) => (P::Serving, A::RestartEngine),
        (P::Draining, I::EngineGone) => (P::Ending, A::StopFunclets),
        (P::Starting | P::Draining | P::Ending, I::Overdue) => (P::Killing, A::KillAll),
        // The kernel does not let go of a process; waiting longer would not help.
        (P::Killing, I::Overdue) => (P::Gone, A::Nothing),
        (P::Starting | P::Serving | P::Draining, I::Hopeless) => (P::Killing, A::KillAll),
        // Late news: the process spoke before it ended, or ends because it was told to.
        (P::Draining | P::Ending | P::Killing, I::Ready)
        | (P::Ending | P::Killing, I::EngineGone | I::Hopeless)
        | (P::Killing, I::Stop) => (phase, A::Nothing),
        (P::Gone, _) => unreachable!("asserted above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use {Action as A, Input as I, Phase as P};

    const PHASES: [P; 5] = [P::Starting, P::Serving, P::Draining, P::Ending, P::Killing];
    const INPUTS: [I; 6] = [I::Ready, I::Stop, I::EngineGone, I::AllGone, I::Overdue, I::Hopeless];

    fn walk(inputs: &[I]) -> (P, Vec<A>) {
        inputs.iter().fold((P::Starting, vec![]), |(phase, mut actions), input| {
            let (phase, action) = transition(phase, *input);
            actions.push(action);
            (phase, actions)
        })
    }

    #[test]
    fn a_stop_drains_then_ends_containers() {
        let (phase, actions) = walk(&[I::Ready, I::Stop, I::EngineGone, I::AllGone]);
        assert_eq!(phase, P::Gone);
        assert_eq!(actions, [A::Announce, A::StopEngine, A::StopFunclets, A::Nothing]);
    }

    #[test]
    fn a_second_stop_kills() {
        assert_eq!(walk(&[I::Ready, I::Stop, I::Stop]).0, P::Killing);
        assert_eq!(walk(&[I::Ready, I::Stop, I::EngineGone, I::Stop]).0, P::Killing);
    }

    #[test]
    fn only_a_serving_engine_is_restarted() {
        for phase in PHASES {
            let restarted = transition(phase, I::EngineGone).1 == A::RestartEngine;
            assert_eq!(restarted, phase == P::Serving, "{phase:?}");
        }
    }

    #[test]
    fn an_engine_that_hangs_is_killed_and_tried_again() {
        let (phase, actions) = walk(&[I::Ready, I::EngineGone, I::Overdue, I::EngineGone, I::Ready]);
        assert_eq!(phase, P::Serving);
        assert_eq!(actions[1..], [A::RestartEngine, A::KillEngine, A::RestartEngine, A::Nothing]);
    }

    #[test]
    fn nothing_leads_back() {
        for (rank, phase) in PHASES.into_iter().enumerate() {
            for input in INPUTS {
                let next = transition(phase, input).0;
                let next_rank = PHASES.iter().position(|p| *p == next).unwrap_or(PHASES.len());
                assert!(next_rank >= rank, "{phase:?} {input:?} {next:?}");
            }
        }
    }
}
