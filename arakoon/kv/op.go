package kv

// Service is the name of the service, for ALPN and the preface.
const Service = "ovs-kv"

// Version is the first byte of every header.
const Version = 1

// Operations. Numbers never change. Those that end in Local are the same as the ones
// without; they have numbers of their own because a connection may answer them without a
// hand-over to another goroutine, which is decided before the header is read.
const (
	OpGet           = 1
	OpGetLocal      = 2
	OpExists        = 3
	OpExistsLocal   = 4
	OpMultiGet      = 5
	OpMultiGetLocal = 6
	OpRange         = 7
	OpRangeLocal    = 8
	OpCount         = 9
	OpCountLocal    = 10
	OpSettle        = 11 // wait until a read would be answered; read nothing
	OpWatch         = 12
	OpWrite         = 16
	OpOpenSession   = 17
	OpTransfer      = 18 // give the lead away
	OpChangeMembers = 19 // in one joint change
	OpRaiseLevel    = 20 // of the group
	OpRequireZones  = 24 // that must hold everything
	OpStatus        = 32
	OpStatistics    = 33
	OpHashAt        = 40 // of the member's state
	OpLevel         = 41 // of the group, and the newest that the member knows
)

// opMost is above all numbers.
const opMost = 64

// opNames are what figures, logs and rules of authorisation call the operations.
var opNames = [opMost]string{
	OpGet: "get", OpGetLocal: "get-local", OpExists: "exists", OpExistsLocal: "exists-local",
	OpMultiGet: "multi-get", OpMultiGetLocal: "multi-get-local", OpRange: "range", OpRangeLocal: "range-local",
	OpCount: "count", OpCountLocal: "count-local", OpSettle: "settle", OpWatch: "watch",
	OpWrite: "write", OpOpenSession: "open-session", OpTransfer: "transfer",
	OpChangeMembers: "change-members", OpRaiseLevel: "raise-level", OpRequireZones: "require-zones",
	OpStatus: "status", OpStatistics: "statistics", OpHashAt: "hash-at", OpLevel: "level",
}

// OpName is the name of an operation, "" if there is none with this number.
func OpName(op uint16) string {
	if op < opMost {
		return opNames[op]
	}
	return ""
}

// OpWrites says whether an operation changes anything.
func OpWrites(op uint16) bool {
	return op == OpWrite || op == OpOpenSession || op == OpTransfer || op == OpChangeMembers || op == OpRaiseLevel || op == OpRequireZones
}

// Limits of one request, in bytes or pieces.
const (
	KeysMax  = 64 << 10 // keys of one multi-get
	PageMax  = 16 << 20 // what a client may ask for as a page of a range; a last entry may be longer
	PageSize = 4 << 20  // of a page, unless the client asks for another
	PageKeys = 64 << 10 // in one page
	CountMax = 1 << 20  // keys that one count looks at
	WatchMax = 60       // seconds that one watch waits for events before it answers without
	wordsMax = 4 << 10  // of a failure
)
