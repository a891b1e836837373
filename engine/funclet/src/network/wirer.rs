//! The thread that makes links, and looks after the rules and what the host was set to.
//!
//! Owns: the thread, its orders and its answers. Must not know: containers.
//!
//! A thread, because the kernel configures networks under one lock: while it removes the links of many dead containers,
//! making one takes up to 0.4 s, and claims must not wait for that. The thread starts no process and touches no state
//! of the funclet's; its only per-thread state, the network namespace, is its own business.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Instant;

use faaster_limits::{
    NAMESPACE_WAIT_MAX, NETWORK_LOOK_AGAIN_AFTER, NETWORK_WATCH_INTERVAL, NETWORKS_KEPT_MAX, SLOTS_MAX,
};
use faaster_netlink::nftables::{Chain, Hook, Policy, Table};
use faaster_protocol::funclet::{Generation, NetworkMode, SlotId};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::thread::CpuSet;

use super::plan::{Place, Plan};
use super::rules::{self, BASE_CHAINS, Surroundings};
use super::spare::Spare;
use super::touched::Touched;
use super::wiring::{Attached, Fresh, Inside, Wiring, WiringError, Wish};
use super::{NetworkConfig, NetworkError, Opened, Wire, host};
use crate::config::FuncletConfig;
use crate::fault::{FaultPoint, Faults};
use crate::notice::{notice, with_causes};

/// A link to be made.
#[derive(Debug)]
pub(crate) struct Order {
    pub slot: SlotId,
    pub generation: Generation,
    pub place: Place,
    pub namespace: OwnedFd,
    pub mode: NetworkMode,
}

/// A network namespace that the thread makes, and then links, while its container's groups are made.
#[derive(Debug)]
pub(crate) struct Promise {
    namespace: Receiver<OwnedFd>,
    decided: Arc<AtomicBool>,
}

impl Promise {
    /// The namespace, which gets its link as an order would have it; none where the thread has other things to do.
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        if let Ok(namespace) = self.namespace.recv_timeout(NAMESPACE_WAIT_MAX) {
            return Some(namespace);
        }
        // Who of both comes first decides; the other one sees it.
        if self.decided.swap(true, Ordering::AcqRel) { self.namespace.recv().ok() } else { None }
    }
}

/// The thread's side of a [`Promise`].
#[derive(Debug)]
struct Commission {
    slot: SlotId,
    generation: Generation,
    place: Place,
    mode: NetworkMode,
    namespace: SyncSender<OwnedFd>,
    decided: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Errand {
    Wire(Order),
    Make(Commission),
    Examine(Leftover),
}

/// What became of an order.
#[derive(Debug)]
pub(crate) struct Wired {
    pub slot: SlotId,
    pub generation: Generation,
    pub outcome: Result<Attached, WiringError>,
    /// Where the container's end of the link is.
    pub namespace: Option<OwnedFd>,
}

/// The network of a container that has ended.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub slot: SlotId,
    /// The life that has ended.
    pub generation: Generation,
    pub wire: Wire,
    pub namespace: OwnedFd,
}

/// At a network that somebody has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    First,
    Last,
}

/// What the thread has done.
#[derive(Debug)]
pub(crate) enum Done {
    Wired(Box<Wired>),
    /// Of what another container may have, with its end of the link. What it may not have is gone with the look at it.
    Untouched(Leftover, Box<Inside>),
}

/// The funclet's end.
#[derive(Debug)]
pub(super) struct Wirer {
    errands: SyncSender<Errand>,
    answers: Receiver<Done>,
    /// Has a byte in it when there are answers.
    bell: OwnedFd,
    thread: Pid,
    /// Where it may run.
    cores: CpuSet,
    /// Errands that it has not done yet.
    under_way: Arc<AtomicUsize>,
}

impl Wirer {
    /// Sets the rules, forgets what the kernel tracks of an earlier run's containers, and starts the thread.
    ///
    /// # Errors
    /// There are no rules, so there must be no links.
    pub(super) fn start(
        config: &FuncletConfig,
        settings: &NetworkConfig,
        plan: Plan,
        faults: &Faults,
    ) -> Result<Self, NetworkError> {
        let mut wiring = Wiring::open(settings, plan)?;
        let mut guard = Guard::new(config, settings);
        guard.write(&mut wiring)?;
        wiring.forget_flows().map_err(NetworkError::Flows)?;
        let (errands, incoming) = sync_channel(SLOTS_MAX);
        let (outgoing, answers) = channel();
        let (bell, rope) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| NetworkError::Thread(errno.into()))?;
        let cores =
            rustix::thread::sched_getaffinity(None).map_err(|errno| NetworkError::Thread(errno.into()))?;
        let under_way = Arc::new(AtomicUsize::new(0));
        let thread = Thread {
            wiring,
            guard,
            incoming,
            outgoing,
            rope,
            cores,
            under_way: Arc::clone(&under_way),
            spare: Spare::none(),
            again: VecDeque::new(),
            faults: faults.clone(),
        };
        let (tell, told) = sync_channel(1);
        std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                tell.send(rustix::thread::gettid()).ok();
                thread.run();
            })
            .map_err(NetworkError::Thread)?;
        let thread = told.recv().map_err(|_| NetworkError::Thread(rustix::io::Errno::SRCH.into()))?;
        Ok(Self { errands, answers, bell, thread, cores, under_way })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// `false`: the thread has more to do than there are slots.
    pub(super) fn order(&self, order: Order) -> bool {
        self.send(Errand::Wire(order))
    }

    /// Has a namespace made and linked on another core than the caller's; none where there is no other, or where the
    /// thread has something to do: who waits for it would wait for that.
    pub(super) fn commission(
        &self,
        (slot, generation): (SlotId, Generation),
        place: Place,
        mode: NetworkMode,
    ) -> Option<Promise> {
        let mut others = self.cores;
        others.unset(rustix::thread::sched_getcpu());
        if others.count() == 0 || self.under_way.load(Ordering::Acquire) > 0 {
            return None;
        }
        // Woken where its caller runs, it would come after all that the caller has to do.
        rustix::thread::sched_setaffinity(Some(self.thread), &others).ok()?;
        let (namespace, made) = sync_channel(1);
        let decided = Arc::new(AtomicBool::new(false));
        let commission =
            Commission { slot, generation, place, mode, namespace, decided: Arc::clone(&decided) };
        self.send(Errand::Make(commission)).then_some(Promise { namespace: made, decided })
    }

    /// `false`: as of an order. Nobody waits for it, so it keeps nobody from a commission.
    pub(super) fn examine(&self, leftover: Leftover) -> bool {
        self.errands.try_send(Errand::Examine(leftover)).is_ok()
    }

    fn send(&self, errand: Errand) -> bool {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let is_sent = self.errands.try_send(errand).is_ok();
        if !is_sent {
            self.under_way.fetch_sub(1, Ordering::AcqRel);
        }
        is_sent
    }

    pub(super) fn take(&self) -> Vec<Done> {
        let mut bytes = [0; 64];
        while rustix::io::read(&self.bell, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
        self.answers.try_iter().collect()
    }
}

struct Thread {
    wiring: Wiring,
    guard: Guard,
    incoming: Receiver<Errand>,
    outgoing: Sender<Done>,
    rope: OwnedFd,
    cores: CpuSet,
    under_way: Arc<AtomicUsize>,
    spare: Spare<Fresh>,
    /// To be looked at again, the first first.
    again: VecDeque<(Instant, Leftover)>,
    faults: Faults,
}

impl Thread {
    /// Until the funclet's end of the channel is gone.
    fn run(mut self) {
        let mut due = Instant::now();
        loop {
            let others = [self.spare.due(), self.again.front().map(|(at, _)| *at)];
            let next = others.into_iter().flatten().fold(due, Instant::min);
            match self.incoming.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(errand) => {
                    let is_awaited = !matches!(errand, Errand::Examine(_));
                    match errand {
                        Errand::Wire(order) => self.carry_out(order),
                        Errand::Make(commission) => {
                            self.make(commission);
                            rustix::thread::sched_setaffinity(None, &self.cores).ok();
                        }
                        Errand::Examine(leftover) => self.examine(leftover, Look::First),
                    }
                    if is_awaited {
                        self.under_way.fetch_sub(1, Ordering::AcqRel);
                    }
                }
                // With nothing else to do.
                Err(RecvTimeoutError::Timeout) => {
                    self.keep_spare();
                    self.look_again();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= due {
                self.spare.age(Instant::now());
                self.guard.look(&mut self.wiring);
                due = Instant::now() + NETWORK_WATCH_INTERVAL;
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        let Order { slot, generation, place, namespace, mode } = order;
        let outcome = self.wiring.wire(&place, namespace.as_fd(), mode);
        self.answer(slot, generation, outcome, Some(namespace));
    }

    /// What fails is only not handed on.
    fn examine(&mut self, leftover: Leftover, look: Look) {
        match self.wiring.look_inside(leftover.namespace.as_fd()) {
            Ok((Touched::No, Some(inside))) => self.tell(Done::Untouched(leftover, Box::new(inside))),
            Ok((Touched::Open, _)) if look == Look::First && self.again.len() < NETWORKS_KEPT_MAX => {
                self.again.push_back((Instant::now() + NETWORK_LOOK_AGAIN_AFTER, leftover));
            }
            Err(WiringError::Lost(_)) => {
                panic!("the network thread cannot come back from a container's namespace")
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn look_again(&mut self) {
        while self.again.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let (_, leftover) = self.again.pop_front().expect("just looked at");
            self.examine(leftover, Look::Last);
        }
    }

    /// A commission that comes to nothing is no news: its container then gets a namespace and a link as others do.
    fn make(&mut self, commission: Commission) {
        let Commission { slot, generation, place, mode, namespace, decided } = commission;
        let hand_over = |fresh: BorrowedFd<'_>| {
            let Ok(copy) = fresh.try_clone_to_owned() else { return Wish::GivenUp };
            let is_late = decided.swap(true, Ordering::AcqRel);
            if is_late || namespace.send(copy).is_err() { Wish::GivenUp } else { Wish::Taken }
        };
        let made = match self.spare.take(Instant::now()) {
            Some(fresh) => Ok((hand_over(fresh.namespace.as_fd()) == Wish::Taken).then_some(fresh)),
            None => self.wiring.make_namespace(hand_over),
        };
        let (outcome, namespace) = match made {
            Ok(Some(fresh)) => {
                let (outcome, namespace) = self.wiring.wire_fresh(&place, fresh, mode);
                (outcome, Some(namespace))
            }
            Err(error @ WiringError::Loopback(_)) => (Err(error), None),
            Err(WiringError::Lost(_)) => {
                panic!("the network thread cannot come back from a namespace it made")
            }
            Ok(None) | Err(_) => return,
        };
        self.answer(slot, generation, outcome, namespace);
    }

    /// For the next commission. Without one, that makes its own.
    fn keep_spare(&mut self) {
        if !self.spare.is_due(Instant::now()) {
            return;
        }
        match self.wiring.make_namespace(|_| Wish::Taken) {
            Ok(Some(fresh)) => self.spare.put(fresh),
            Err(WiringError::Lost(_)) => {
                panic!("the network thread cannot come back from a namespace it made")
            }
            Ok(None) | Err(_) => {}
        }
    }

    fn answer(
        &self,
        slot: SlotId,
        generation: Generation,
        outcome: Result<Attached, WiringError>,
        namespace: Option<OwnedFd>,
    ) {
        if let Err(WiringError::Lost(_)) = outcome {
            // Whatever this thread did now would be done to a container.
            panic!("the network thread cannot come back from a container's namespace");
        }
        self.faults.at(FaultPoint::CreateWired);
        self.tell(Done::Wired(Box::new(Wired { slot, generation, outcome, namespace })));
    }

    fn tell(&self, done: Done) {
        // A funclet that is gone needs no answer.
        self.outgoing.send(done).ok();
        // A full pipe rings, too.
        rustix::io::write(&self.rope, &[1]).ok();
    }
}

/// Looks after what other people can change under us.
struct Guard {
    config: FuncletConfig,
    settings: NetworkConfig,
    table: Table,
    /// What the rules were last written for.
    written: Option<Surroundings>,
    /// Foreign chains that have been complained of.
    told: BTreeSet<String>,
    /// The last complaint, which is not repeated.
    complaint: String,
}

impl Guard {
    fn new(config: &FuncletConfig, settings: &NetworkConfig) -> Self {
        Self {
            config: config.clone(),
            settings: settings.clone(),
            table: rules::table_of(config),
            written: None,
            told: BTreeSet::new(),
            complaint: String::new(),
        }
    }

    fn surroundings(&self, wiring: &mut Wiring) -> Result<Surroundings, NetworkError> {
        let opened = &self.settings.opened;
        // Once the whole host passes packets on, it is meant to: by somebody else, who has rules of his own.
        let links = if host::forwards_v4() { Vec::new() } else { opened.links.clone() };
        Ok(Surroundings {
            networks: host::networks(wiring.route())?,
            guarded: Opened { links, v6: opened.v6 },
        })
    }

    fn write(&mut self, wiring: &mut Wiring) -> Result<(), NetworkError> {
        let surroundings = self.surroundings(wiring)?;
        let transaction =
            rules::transaction(&self.table, &self.config.instance, &self.settings, &surroundings);
        wiring.netfilter()?.commit(&transaction)?;
        self.written = Some(surroundings);
        Ok(())
    }

    fn look(&mut self, wiring: &mut Wiring) {
        match self.look_at_all(wiring) {
            Ok(()) => self.complaint.clear(),
            Err(error) => {
                let text = format!("the network's rules cannot be looked after: {}", with_causes(&error));
                if text != self.complaint {
                    notice(&self.config, &text);
                    self.complaint = text;
                }
            }
        }
    }

    fn look_at_all(&mut self, wiring: &mut Wiring) -> Result<(), NetworkError> {
        let chains = wiring.netfilter()?.chains()?;
        let ours =
            |name: &&&str| chains.iter().any(|chain| is_ours(chain, &self.table) && chain.name == **name);
        if BASE_CHAINS.iter().filter(ours).count() < BASE_CHAINS.len() {
            self.write(wiring)?;
            notice(&self.config, "somebody removed the network's rules (nft flush ruleset?); they are back");
        } else if self.written.as_ref() != Some(&self.surroundings(wiring)?) {
            self.write(wiring)?;
        }
        self.keep_open();
        self.tell_of_foreign(&chains);
        Ok(())
    }

    /// Somebody may have set back what answers to containers need: another engine at its end, say.
    fn keep_open(&self) {
        for link in &self.settings.opened.links {
            if !host::forwards_v4() && !host::link_forwards(link) {
                // A link that is gone has no switch, and needs none.
                host::set_link_forwards(link, true).ok();
            }
        }
        if self.settings.opened.v6 && !host::forwards_v6() {
            host::set_forwards_v6(true).ok();
        }
    }

    fn tell_of_foreign(&mut self, chains: &[Chain]) {
        for sentence in foreign_drops(chains) {
            if self.told.insert(sentence.clone()) {
                notice(&self.config, &sentence);
            }
        }
    }
}

fn is_ours(chain: &Chain, table: &Table) -> bool {
    chain.family == table.family && chain.table == table.name.as_str()
}

/// A sentence on each chain of others that drops forwarded packets unless its rules let them pass; Docker makes one.
pub(super) fn foreign_drops(chains: &[Chain]) -> Vec<String> {
    let drops = |chain: &&Chain| {
        chain.base.is_some_and(|base| base.hook == Hook::Forward && base.policy == Policy::Drop)
            && rules::instance_of_table(chain).is_none()
    };
    let has_docker = chains.iter().any(|chain| chain.name == "DOCKER-USER");
    chains.iter().filter(drops).map(|chain| foreign_sentence(chain, has_docker)).collect()
}

fn foreign_sentence(chain: &Chain, has_docker: bool) -> String {
    use faaster_netlink::nftables::Family;
    let family = match chain.family {
        Family::Inet => "inet",
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
        Family::Other(_) => "bridge",
    };
    let at = format!("{family} {} {}", chain.table, chain.name);
    let remedy = match (chain.table.as_str(), family) {
        // iptables in its nftables form.
        ("filter", "ip" | "ip6") => {
            let tool = if family == "ip" { "iptables" } else { "ip6tables" };
            let target = if has_docker && family == "ip" { "DOCKER-USER" } else { chain.name.as_str() };
            format!("{tool} -I {target} -i faas+ -j ACCEPT; {tool} -I {target} -o faas+ -j ACCEPT")
        }
        _ => format!(
            "nft insert rule {at} iifname \"faas*\" accept; nft insert rule {at} oifname \"faas*\" accept"
        ),
    };
    format!(
        "the chain `{at}` drops forwarded packets that its rules do not accept, containers' too; if functions do not \
         reach the world, let theirs pass (faaster's own rules still hold): {remedy}"
    )
}

#[cfg(test)]
mod tests {
    use faaster_netlink::nftables::{Base, Family};

    use super::*;

    fn chain(family: Family, table: &str, name: &str, hook: Hook, policy: Policy) -> Chain {
        let base = Some(Base { hook, priority: 0, policy });
        Chain { family, table: table.into(), name: name.into(), base, kind: "filter".into() }
    }

    fn promise() -> (SyncSender<OwnedFd>, Promise) {
        let (namespace, made) = sync_channel(1);
        (namespace, Promise { namespace: made, decided: Arc::new(AtomicBool::new(false)) })
    }

    fn some_descriptor() -> OwnedFd {
        rustix::pipe::pipe().unwrap().0
    }

    #[test]
    fn a_promise_is_kept_or_given_up_and_both_sides_agree_which() {
        let (namespace, kept) = promise();
        kept.decided.store(true, Ordering::Release);
        namespace.send(some_descriptor()).unwrap();
        assert!(kept.take().is_some());
        let (_namespace, late) = promise();
        assert!(late.take().is_none());
        assert!(late.decided.load(Ordering::Acquire), "the thread sees that nobody waits any more");
        let (namespace, broken) = promise();
        drop(namespace);
        assert!(broken.take().is_none(), "the thread could not make one");
    }

    #[test]
    fn what_the_thread_has_decided_is_waited_for() {
        let (namespace, promise) = promise();
        // The thread comes first and is slow to say what it has.
        promise.decided.store(true, Ordering::Release);
        let taken = std::thread::scope(|scope| {
            let taking = scope.spawn(move || promise.take());
            scope.spawn(move || namespace.send(some_descriptor()).unwrap());
            taking.join().unwrap()
        });
        assert!(taken.is_some());
    }

    #[test]
    fn foreign_policies_are_named_with_their_remedy() {
        let docker = [
            chain(Family::Ipv4, "filter", "FORWARD", Hook::Forward, Policy::Drop),
            Chain { base: None, ..chain(Family::Ipv4, "filter", "DOCKER-USER", Hook::Forward, Policy::Drop) },
            chain(Family::Ipv4, "filter", "INPUT", Hook::Input, Policy::Drop),
        ];
        let told = foreign_drops(&docker);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("iptables -I DOCKER-USER -i faas+ -j ACCEPT"), "{told:?}");
        let plain = [chain(Family::Inet, "theirs", "fwd", Hook::Forward, Policy::Drop)];
        assert!(
            foreign_drops(&plain)[0].contains("nft insert rule inet theirs fwd iifname \"faas*\" accept")
        );
        let harmless = [
            chain(Family::Inet, "theirs", "fwd", Hook::Forward, Policy::Accept),
            chain(Family::Inet, "faaster-0123abcd-0", "forward", Hook::Forward, Policy::Drop),
        ];
        assert!(foreign_drops(&harmless).is_empty());
    }
}
