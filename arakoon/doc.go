// Package arakoon is a consistent replicated key-value store: a Node is one
// member of a cluster, with raft over a log of its own (package raftlog) and a
// state machine on Pebble (package state) that runs user functions.
//
// One goroutine steps raft. It harvests what clients have proposed while the
// log was busy into one entry. Another appends: all that is queued becomes one
// write and one sync. A third applies, many entries a batch. A write is
// answered when it is durable in the log and applied; what Pebble has not
// flushed yet, a restart applies again from the log, which is truncated only
// behind a finished flush; a fourth goroutine sees to that.
//
// The disk (rule P6): after a write or sync of the log that fails, what it was to
// make durable is written once more, in a new segment; if that fails too, the
// node has failed for good, and is opened again when the disk is well. While a
// new segment cannot be begun for want of room, descriptors, memory or rights,
// the node waits. A full disk under Pebble only makes applying wait.
//
// Messages to other members go through a Transport. A cluster of one needs
// none and elects itself at once.
package arakoon
