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
)

// functionVersion is the version of all functions.
const functionVersion = 1

// Functions returns the functions that the cluster of the ABM runs.
func Functions() []userfn.Function {
	return []userfn.Function{
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
	}
}
