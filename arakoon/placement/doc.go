// Package placement decides on which hosts the members of an Arakoon group are. It is
// pure: hosts and members go in, and the next step comes out. Whoever holds the lease for it
// takes the step, looks at the group again, and asks for the next one.
//
// # What it aims at
//
//   - As many voters as the hosts allow: five on five hosts, three on three or four, one on
//     one or two. An even number never rests, because one more voter than an odd number
//     adds a disk that may fail and no failure that may be survived.
//   - On two hosts, one voter and one learner. With a zone requirement, or where the group
//     makes its learner synchronous, that learner has all that was answered.
//   - No two members on one host, and voters spread over the zones as evenly as the hosts
//     allow. So of three zones one may be lost.
//   - Members stay where they are unless one of the above needs a move. A member that leads
//     moves last.
//
// # What it never does
//
//   - It takes no member from a host that is merely away. Only a person, or a rule above
//     this package, gives up a host (Host.Leaves): an away host may come back with votes and
//     entries that others count on.
//   - It proposes no change that the voters which can be reached could not commit, in the
//     old configuration and in the new one.
//   - It promotes no learner that lags.
//   - It leaves no fewer zones with members than the group requires. Where hosts are left in
//     too few zones it waits for a person.
package placement
