package nsm

import "openvstorage/alba/nsm/userfn"

// Names of the functions. Name and version are part of replicated commands: what they mean
// never changes.
const (
	namePut         = "nsm.put"
	namePutMany     = "nsm.put-many"
	nameDelete      = "nsm.delete"
	nameUpdate      = "nsm.update"
	nameOpenEpoch   = "nsm.open-epoch"
	nameCloseEpoch  = "nsm.close-epoch"
	nameMarkDeleted = "nsm.mark-deleted"
	nameDeliver     = "nsm.deliver"
	nameCleanup     = "nsm.cleanup"
	nameForgetOSD   = "nsm.forget-osd"
)

// functionVersion is the version of all functions.
const functionVersion = 1

// Functions returns the functions that an NSM host runs.
func Functions() []userfn.Function {
	return []userfn.Function{
		userfn.Define(namePut, functionVersion, put),
		userfn.Define(namePutMany, functionVersion, putMany),
		userfn.Define(nameDelete, functionVersion, remove),
		userfn.Define(nameUpdate, functionVersion, update),
		userfn.Define(nameOpenEpoch, functionVersion, openEpoch),
		userfn.Define(nameCloseEpoch, functionVersion, closeEpoch),
		userfn.Define(nameMarkDeleted, functionVersion, markDeleted),
		userfn.Define(nameDeliver, functionVersion, deliver),
		userfn.Define(nameCleanup, functionVersion, cleanup),
		userfn.Define(nameForgetOSD, functionVersion, forgetOSD),
	}
}
