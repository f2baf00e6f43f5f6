package abm

import "openvstorage/alba/nsm/userfn"

// Names of the functions. Name and version are part of replicated commands: what they mean
// never changes.
const (
	nameInit          = "abm.init"
	nameRegister      = "abm.register-osd"
	nameClaim         = "abm.claim-osd"
	nameRetire        = "abm.retire-osd"
	namePurge         = "abm.purge-osd"
	nameHealth        = "abm.update-health"
	namePutPreset     = "abm.put-preset"
	nameDeletePreset  = "abm.delete-preset"
	nameSetDefault    = "abm.set-default-preset"
	nameCreate        = "abm.create-namespace"
	nameDelete        = "abm.delete-namespace"
	namePutHost       = "abm.put-host"
	nameMarkDelivered = "abm.mark-delivered"
	nameLease         = "abm.lease"
	namePutKey        = "abm.put-key-check"

	// Those of many hosts.
	namePutNode       = "abm.put-node"
	nameForgetNode    = "abm.forget-node"
	nameMoveOSD       = "abm.move-osd"
	nameUndrain       = "abm.cancel-drain"
	nameFinishOSD     = "abm.finish-osd"
	nameSetHost       = "abm.set-host"
	nameRemoveHost    = "abm.remove-host"
	nameAddWork       = "abm.add-work"
	nameTakeWork      = "abm.take-work"
	nameEndWork       = "abm.end-work"
	nameRetryWork     = "abm.retry-work"
	nameProgress      = "abm.progress"
	nameMoveNamespace = "abm.move-namespace"
)

// functionVersion is the version of all functions.
const functionVersion = 1

// Functions returns the functions that the cluster of the ABM runs.
func Functions() []userfn.Function {
	return append([]userfn.Function{
		userfn.Define(nameInit, functionVersion, initialise),
		userfn.Define(nameRegister, functionVersion, register),
		userfn.Define(nameClaim, functionVersion, claim),
		userfn.Define(nameRetire, functionVersion, retire),
		userfn.Define(namePurge, functionVersion, purge),
		userfn.Define(nameHealth, functionVersion, updateHealth),
		userfn.Define(namePutPreset, functionVersion, putPreset),
		userfn.Define(nameDeletePreset, functionVersion, deletePreset),
		userfn.Define(nameSetDefault, functionVersion, setDefault),
		userfn.Define(nameCreate, functionVersion, create),
		userfn.Define(nameDelete, functionVersion, remove),
		userfn.Define(namePutHost, functionVersion, putHost),
		userfn.Define(nameMarkDelivered, functionVersion, markDelivered),
		userfn.Define(nameLease, functionVersion, lease),
		userfn.Define(namePutKey, functionVersion, putKey),
	}, userfn.From(userfn.LevelHosts,
		userfn.Define(namePutNode, functionVersion, putNode),
		userfn.Define(nameForgetNode, functionVersion, forgetNode),
		userfn.Define(nameMoveOSD, functionVersion, moveOSD),
		userfn.Define(nameUndrain, functionVersion, undrain),
		userfn.Define(nameFinishOSD, functionVersion, finishOSD),
		userfn.Define(nameSetHost, functionVersion, setHost),
		userfn.Define(nameRemoveHost, functionVersion, removeHost),
		userfn.Define(nameAddWork, functionVersion, addWork),
		userfn.Define(nameTakeWork, functionVersion, takeWork),
		userfn.Define(nameEndWork, functionVersion, endWork),
		userfn.Define(nameRetryWork, functionVersion, retryWork),
		userfn.Define(nameProgress, functionVersion, progress),
		userfn.Define(nameMoveNamespace, functionVersion, moveNamespace),
	)...)
}
