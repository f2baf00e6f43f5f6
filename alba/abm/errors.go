package abm

import "openvstorage/alba/nsm/userfn"

// Errors of calls, for errors.Is. Their message is only what the code means; the error of a
// call says more.
var (
	ErrInvalid           = userfn.Errorf(userfn.CodeInvalid, "invalid argument")
	ErrCorrupt           = userfn.Errorf(userfn.CodeCorrupt, "corrupt record")
	ErrNotFound          = userfn.Errorf(userfn.CodeNotFound, "not found")
	ErrExists            = userfn.Errorf(userfn.CodeExists, "exists")
	ErrConflict          = userfn.Errorf(userfn.CodeConflict, "in another state")
	ErrNamespaceNotFound = userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace not found")
	ErrNamespaceExists   = userfn.Errorf(userfn.CodeNamespaceExists, "namespace exists")
	ErrInUse             = userfn.Errorf(userfn.CodeInUse, "in use")
	ErrNoHost            = userfn.Errorf(userfn.CodeNoHost, "no NSM host")
	ErrLease             = userfn.Errorf(userfn.CodeLease, "another holds the lease")
	ErrFull              = userfn.Errorf(userfn.CodeFull, "as many as there may be")
)
