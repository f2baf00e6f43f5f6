// Package members makes a host hold members of a cluster's Arakoon groups, and use the groups
// wherever they are led.
//
// The first host of a cluster made the groups, with member 1 of each. When others join, the
// steward (package arakoon/membership) puts members on them: Members is what makes and
// drops those of this host, has them hear from each other, answers for them on the host's
// one listener, and gives the groups' users a Store that follows whoever leads.
//
// # Services
//
//	ovs-raft    messages of the members, and snapshots; for hosts with the role arakoon
//	ovs-kv      the groups' keys; for hosts with the role arakoon, which hold them all
//	ovs-member  a steward asks whether the host is there, and has it make and drop members
//
// # Where others are
//
// DIR/roster (package arakoon/roster) says on which hosts members are and where these hosts
// are. It is what a host begins with after a start: so hosts that all start at once, in any
// order, find each other without asking anybody. While a host runs it watches the roster in
// the config group, and writes the file when it has changed. The records of package
// host/roster are the truth about addresses and zones, as each host writes its own; the
// steward takes them over into the roster.
//
// # The steward
//
// The host that leads the config group looks, when the roster changes and every few seconds,
// whether anything is to be done, and writes nothing to find out. If so it takes the lease
// "membership" in the config group, and gives it back when nothing is left to do. Where two
// hosts believe that they are the steward no harm is done: each step is conditional.
//
// # What must hold
//
// A member begins with nothing only where Make says so, on the steward's word that the group
// has committed its number; the record of the data directory knows of it from then on, and a
// member that is missing is refused by name (P8). Drop deletes only after the group itself has
// said, in a consistent read of its members, that it goes on without the number.
//
// All exported types are safe for concurrent use.
package members
