// Package health judges the states of a backend's parts: a disk, a fragment, an
// object, a namespace, a group, and the whole. It is functions over what callers have
// observed: it does no I/O and reads no clock. All lists and metrics take their states
// from here, so that they agree.
//
// The table for people is in docs/operations.md, under "Disks"; a test compares the
// two. The rules behind it:
//
//   - Whatever needs a person to act has another state than ok.
//   - Unreadable means that a read fails now. Data that has lost some of its fragments
//     and can be read is degraded.
//   - A disk without room is sound: the writes that it refuses are no errors.
package health

// State is the state of a part. The lists of this package hold all states.
type State string

// OK is the state of any part that is as it should be.
const OK State = "ok"
