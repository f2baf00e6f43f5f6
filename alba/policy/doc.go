// Package policy says how far an object is spread: k data and m parity fragments,
// accepted when c of them are stored, at most x on one node. Two decisions follow from
// that: which policy of a list the disks at hand can keep ([Choose]), and which disk
// takes which fragment ([Place]).
//
// Everything here is a pure function of values. Callers pass chance in.
//
// x counts fragments on one node, and all disks of one machine are on one node. A store
// on one machine therefore needs an x as large as the number of fragments of a chunk:
// 2,1,2,3 works on three disks of one machine, 2,1,2,1 only on three machines.
package policy
