// Package health says in which state the parts of a backend are: a disk, a
// fragment, an object, a namespace, a group, and the whole. It is functions over
// what others have observed; it asks nobody and knows no clock. Whoever lists or
// shows a state has it from here, so that all say the same.
//
// The table for people is in docs/operations.md, under "Disks"; a test compares
// the two. The rules behind it:
//
//   - Nothing is ok that a person would have to do something about.
//   - Unreadable is what somebody would be refused when they read it now. What has
//     lost some of its fragments, and can be read, is degraded.
//   - A disk that has no room does its work: what it refuses is no error of it.
package health

// State says how something is. Every state is one of the lists below.
type State string

// OK is the state of what is as it should be, of all kinds.
const OK State = "ok"
