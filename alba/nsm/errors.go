package nsm

import "openvstorage/alba/nsm/userfn"

// Errors of calls, for errors.Is. Their message is only what the code means; the error of a
// call says more.
var (
	ErrInvalid           = userfn.Errorf(userfn.CodeInvalid, "invalid argument")
	ErrCorrupt           = userfn.Errorf(userfn.CodeCorrupt, "corrupt record")
	ErrNotFound          = userfn.Errorf(userfn.CodeNotFound, "not found")
	ErrExists            = userfn.Errorf(userfn.CodeExists, "object exists with other bytes")
	ErrConflict          = userfn.Errorf(userfn.CodeConflict, "object has another version")
	ErrNamespaceNotFound = userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace not found")
	ErrEpoch             = userfn.Errorf(userfn.CodeEpoch, "gc epoch is not open")
	ErrIDUsed            = userfn.Errorf(userfn.CodeIDUsed, "object id was used before")
	ErrOSD               = userfn.Errorf(userfn.CodeOSD, "OSD takes no new fragments")
	ErrSpread            = userfn.Errorf(userfn.CodeSpread, "fragments are too few or too close together")
	ErrGap               = userfn.Errorf(userfn.CodeGap, "a message is missing")
	ErrInUse             = userfn.Errorf(userfn.CodeInUse, "in use")
	ErrFull              = userfn.Errorf(userfn.CodeFull, "as many as there may be")
	ErrMoving            = userfn.Errorf(userfn.CodeMoving, "namespace is between two hosts")
	ErrMoved             = userfn.Errorf(userfn.CodeMoved, "namespace is on another host")
	ErrAssert            = userfn.Errorf(userfn.CodeAssert, "an assertion does not hold")
)
