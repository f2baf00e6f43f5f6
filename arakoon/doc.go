// Package arakoon is a consistent replicated key-value store. A Node is one member of
// a group: it runs raft over a log of its own (package raftlog), and a state machine
// on Pebble (package state) that runs user functions.
//
// Four goroutines run a node, each with a type of its own:
//
//   - The stepper owns raft. While the log is busy it lets proposals gather, and then
//     makes one entry of them.
//   - The appender stores in the log whatever is queued, with one write and one sync.
//   - The applier applies committed entries, many in one batch, and answers whoever
//     proposed them.
//   - The compactor truncates the log.
//
// A write is answered when it is durable in the log and applied to the state. Pebble
// need not have flushed it by then: a restart applies it again from the log. Therefore
// the log is truncated only behind a finished flush.
//
// Failures of the disk (rule P6): if a write or sync of the log fails, its records are
// written once more, in a new segment. If that fails too, the node has failed: it does
// nothing more until it is opened again. If a new segment cannot be begun for want of
// room, descriptors, memory or rights, the node waits until it can. If Pebble finds the
// disk full, applying waits, and nothing fails.
//
// A member that needs entries which the leader's log has dropped gets the leader's state: a
// checkpoint, which it fetches through Options.Fetcher and puts in the place of its own
// (snapshot.go says how). The leader keeps its log behind that for as long as the member
// needs, within Options.HoldBytes.
//
// Messages to other members go through a Transport. A group of one needs none and elects
// itself at once. Members join as learners, are promoted and removed while the group runs
// (members.go, change.go); where zones are required, acknowledgements pass a gate
// (zones.go); who leads beside what raft does is in lead.go. docs/members.md tells it whole.
package arakoon
