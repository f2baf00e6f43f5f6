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

	// Those of many hosts.
	nameApply         = "nsm.apply"
	nameExport        = "nsm.export"
	nameTrim          = "nsm.trim-changes"
	nameDropMoved     = "nsm.drop-moved"
	nameImportPage    = "nsm.import-page"
	nameImportChanges = "nsm.import-changes"
	nameActivate      = "nsm.activate"
)

// functionVersion is the version of all functions.
const functionVersion = 1

// deliverHostsVersion is the version of nsm.deliver that takes the messages of many hosts.
const deliverHostsVersion = 2

// Functions returns the functions that an NSM host runs.
func Functions() []userfn.Function {
	return append([]userfn.Function{
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
	}, userfn.From(userfn.LevelHosts,
		userfn.Define(nameDeliver, deliverHostsVersion, deliverHosts),
		userfn.Define(nameApply, functionVersion, applySequence),
		userfn.Define(nameExport, functionVersion, export),
		userfn.Define(nameTrim, functionVersion, trimChanges),
		userfn.Define(nameDropMoved, functionVersion, dropMoved),
		userfn.Define(nameImportPage, functionVersion, importPage),
		userfn.Define(nameImportChanges, functionVersion, importChanges),
		userfn.Define(nameActivate, functionVersion, activate),
	)...)
}
