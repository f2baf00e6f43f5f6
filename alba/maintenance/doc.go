// Package maintenance keeps an ALBA backend as it should be:
//
//	messages   of the ABM are carried to the NSM hosts
//	cleanup    takes the objects out of namespaces that were deleted
//	deletion   of fragments that no object names any more, on their disks
//	repair     makes fragments again that are bad, below full width, or on a
//	           disk that is lost or on its way out
//	collection of fragments that uploads left which never committed
//	scrub      reads every fragment back, at the pace that a round in a set time
//	           takes; where it is outlives the process
//	unread     reads that failed for good are made again, so that what people are
//	           shown is what a read would get now
//
// All of it may be done by several processes at once, be stopped anywhere, and
// be begun again: every change is a call to a manager that is fenced by epoch
// and revision, and fragments are deleted only after no manifest can name them
// again (rule O7).
package maintenance
