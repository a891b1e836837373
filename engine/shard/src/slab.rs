//! A table whose positions are reused under a new generation, so that a stale id names nothing.
//!
//! Owns: its values. Must not know: what they are.

use std::marker::PhantomData;

/// Names one value for as long as it lives.
pub(crate) struct Id<T> {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        Self { index, generation, kind: PhantomData }
    }

    /// Both halves in one number, for the wire.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        let index = u32::try_from(bits & 0xffff_ffff).expect("32 bits fit");
        let generation = u32::try_from(bits >> 32).expect("32 bits fit");
        Self::new(index, generation)
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Id<T> {}
impl<T> std::fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

/// Generations use 24 bits, so that a generation, an index and a kind fit in one completion token.
const GENERATION_MASK: u32 = 0x00ff_ffff;

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Id<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            // Generations start at 1: id 0 stands for none in the frame protocol.
            self.entries.push(Entry { generation: 1, value: None });
            u32::try_from(self.entries.len() - 1).expect("tables are bounded far below 4 billion")
        });
        let entry = &mut self.entries[index as usize];
        assert!(entry.value.is_none(), "a free position holds no value");
        entry.value = Some(value);
        Id::new(index, entry.generation)
    }

    pub(crate) fn get(&self, id: Id<T>) -> Option<&T> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation == id.generation { entry.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation { entry.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, id: Id<T>) -> Option<T> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = ((entry.generation + 1) & GENERATION_MASK).max(1);
        self.free.push(id.index);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let index = u32::try_from(index).expect("tables are bounded far below 4 billion");
            entry.value.as_ref().map(|value| (Id::new(index, entry.generation), value))
        })
    }

    /// Ids of all values, for loops that change the table.
    pub(crate) fn ids(&self) -> Vec<Id<T>> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_names_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(second.index, first.index, "positions are reused");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
        assert_eq!(Id::<char>::from_bits(second.to_bits()), second);
    }
}
