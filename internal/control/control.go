// Package control is the management protocol: what `ovs vdisk ...`, `ovs alba ...`, `ovs
// host ...`, `ovs ca ...` and `ovs arakoon ...` say to the `ovs up` of a data directory, over
// the unix socket DIR/ovs.sock.
//
// The protocol is HTTP/1.1 with JSON, one POST for each call:
//
//	POST /v1/vdisk/create    {"name":"disk1","size":10737418240}
//	200  application/x-ndjson
//	{"progress":{"done":1048576,"total":4194304}}     any number of lines
//	{"item":{...}}                                    any number, of a watch or a backup
//	{"result":{...}}  or  {"error":{"kind":"exists","message":"..."}}
//
// The answer is lines of JSON. The last line says how the call ended. Without that
// line the answer was cut off, and the call may or may not have taken effect. The
// answer of a call without progress carries the outcome in the HTTP status as well,
// for those who use curl. Closing the connection cancels the call.
//
// The path holds the version. A release serves every version that it knows. A
// client that asks for a version which the server lacks gets an error that names it.
package control

// Version is the protocol's version, the first part of every path.
const Version = "v1"

// SocketName is the management socket's name in a data directory. It may be a
// symbolic link to where the socket is.
const SocketName = "ovs.sock"

// Limits of the protocol.
const (
	RequestMax  = 64 << 10 // bytes of a request's body
	responseMax = 64 << 20 // bytes of one line of an answer, as the client takes it
)

// Status is what the server tells about itself.
type Status struct {
	PID     int    `json:"pid"`
	Data    string `json:"data"`    // the data directory
	Release string `json:"release"` // of the binary
	// Cluster is what the host is in a cluster; nil: it is in none.
	Cluster *ClusterSelf `json:"cluster,omitempty"`
}

// Progress is how far a long call has come, in bytes.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Host is what the server manages: the vDisks of one data directory. All methods are
// safe for concurrent use. What a method has changed is durable when it returns nil.
// Errors match a kind of this package, or are failures. Sizes are in bytes. Progress
// functions are called one at a time, and never after the method has returned.
type Host interface {
	VDisks
	Snapshots
}
