// Package policy is how far an object is spread: k data and m parity
// fragments, accepted when c of them are stored, at most x on one node; and
// the decisions that follow from it: which policy of a list can be kept with the
// disks at hand ([Choose]), and which disk takes which fragment ([Place]).
//
// Everything here is a pure function of values; chance is passed in.
//
// x counts fragments per node, and all disks of one machine are on one node. A
// store on one machine therefore needs x as large as the number of fragments
// that it wants stored: 2,1,2,3 works on three disks of one machine, 2,1,2,1
// only on three machines.
package policy
