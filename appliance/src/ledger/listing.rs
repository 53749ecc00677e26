//! Long lists, a page at a time: of a table as long as the rack is large, or as old, only what is shown is read, and
//! packets never wait for it.

use super::{
    Fault, Ledger, Stored,
    storage::{Span, Table},
};
use bennu_rules::{
    MacAddress, Machine, Records,
    boot::{Boot, BootId},
    lease::Lease,
    machine::Outline,
};
use std::{net::Ipv4Addr, ops::ControlFlow};

/// Open boots that are looked at in one go.
const AT_ONCE: usize = 64;

impl Stored<'_> {
    /// Shows machines by id, those behind `after`, until `look` has seen enough.
    pub fn each_machine(&self, after: Option<MacAddress>, mut look: impl FnMut(Machine) -> ControlFlow<()>) {
        let after = after.map(|after| after.0);
        let span = Span { after: after.as_ref().map(<[u8; 6]>::as_slice), ..Span::default() };
        self.each(Table::Machines, span, |_, machine| look(machine));
    }

    /// Every machine in outline, by id.
    pub fn outlines(&self) -> Vec<Outline> {
        self.all(Table::Machines)
    }

    /// How many machines there are.
    pub fn machine_count(&self) -> usize {
        self.count(Table::Machines)
    }

    /// How many images there are.
    pub fn image_count(&self) -> usize {
        self.count(Table::Images)
    }

    /// The ids of all machines, in order.
    pub fn machine_ids(&self) -> Vec<MacAddress> {
        let mut ids = Vec::new();
        self.pairs(Table::Machines, Span::default(), |key, _| {
            ids.extend(key.try_into().map(MacAddress));
            ControlFlow::Continue(())
        });
        ids
    }

    /// Shows leases by address, ended ones too, those behind `after`, until `look` has seen enough.
    pub fn each_lease(&self, after: Option<Ipv4Addr>, mut look: impl FnMut(Lease) -> ControlFlow<()>) {
        let after = after.map(|after| after.octets());
        let span = Span { after: after.as_ref().map(<[u8; 4]>::as_slice), ..Span::default() };
        self.pairs(Table::Addresses, span, |_, key| match self.get(Table::Leases, key) {
            Some(lease) => look(lease),
            None => ControlFlow::Continue(()),
        });
    }
}

impl Ledger {
    /// Looks at what is stored, and at nothing that a restart forgets: nobody waits meanwhile.
    pub fn stored<T>(&self, look: impl FnOnce(&Stored<'_>) -> T) -> Result<T, Fault> {
        let snapshot = self.shared.storage.snapshot()?;
        let stored = Stored::new(&*snapshot);
        let seen = look(&stored);
        stored.check().map(|()| seen)
    }

    /// The latest boot of a machine, as it goes on now, else as it was stored.
    pub fn latest_boot(&self, machine: MacAddress) -> Result<Option<Boot>, Fault> {
        match self.shared.volatile().live.boot(machine).cloned() {
            Some(boot) => Ok(Some(boot)),
            None => self.stored(|records| records.latest_boot_id(machine).and_then(|id| records.boot(&id))),
        }
    }

    /// The latest boot of each machine, by any of its cards, as `show` has it.
    pub fn latest_boots<'m, T>(
        &self,
        macs: impl IntoIterator<Item = &'m [MacAddress]>,
        show: impl Fn(&Boot) -> T,
    ) -> Result<Vec<Option<T>>, Fault> {
        let macs: Vec<&[MacAddress]> = macs.into_iter().collect();
        let mut latest: Vec<Option<(BootId, T)>> = Vec::with_capacity(macs.len());
        for some in macs.chunks(AT_ONCE) {
            let live = &self.shared.volatile().live;
            let newest =
                |macs: &&[MacAddress]| macs.iter().filter_map(|mac| live.boot(*mac)).max_by(|a, b| a.id.cmp(&b.id));
            latest.extend(some.iter().map(newest).map(|boot| boot.map(|boot| (boot.id.clone(), show(boot)))));
        }
        self.stored(|records| {
            for (macs, latest) in macs.iter().zip(&mut latest) {
                // The boot of a single card that is in memory is its latest.
                if latest.is_some() && macs.len() == 1 {
                    continue;
                }
                let newest = macs.iter().filter_map(|mac| records.latest_boot_id(*mac)).max();
                let newer = newest.filter(|id| latest.as_ref().is_none_or(|(known, _)| known < id));
                if let Some(boot) = newer.and_then(|id| records.boot(&id)) {
                    *latest = Some((boot.id.clone(), show(&boot)));
                }
            }
        })?;
        Ok(latest.into_iter().map(|latest| latest.map(|(_, shown)| shown)).collect())
    }

    /// Shows the boots of all machines, newest first and as they are known now, those older than `after`, until `look`
    /// has seen enough.
    pub fn each_boot(
        &self,
        after: Option<&BootId>,
        mut look: impl FnMut(Boot) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let mut open: Vec<(BootId, MacAddress)> =
            self.shared.volatile().live.boots().map(|boot| (boot.id.clone(), boot.machine)).collect();
        open.retain(|(id, _)| after.is_none_or(|after| id < after));
        open.sort_by(|a, b| b.cmp(a));
        let mut open = open.into_iter().peekable();
        // One that ended meanwhile is stored, or will be.
        let live = |(id, machine): (BootId, MacAddress)| {
            self.shared.volatile().live.boot(machine).filter(|boot| boot.id == id).cloned()
        };
        let mut enough = false;
        self.stored(|records| {
            let span = Span { after: after.map(|after| after.0.as_bytes()), ..Span::down(&[]) };
            records.pairs(Table::Boots, span, |key, _| {
                while let Some(newer) = open.next_if(|(id, _)| id.0.as_bytes() > key) {
                    if live(newer).is_some_and(|boot| look(boot).is_break()) {
                        enough = true;
                        return ControlFlow::Break(());
                    }
                }
                let now = open.next_if(|(id, _)| id.0.as_bytes() == key).and_then(live);
                let Some(boot) = now.or_else(|| records.get(Table::Boots, key)) else { return ControlFlow::Break(()) };
                enough = look(boot).is_break();
                if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        })?;
        while !enough && let Some(next) = open.next() {
            enough = live(next).is_some_and(|boot| look(boot).is_break());
        }
        Ok(())
    }
}
