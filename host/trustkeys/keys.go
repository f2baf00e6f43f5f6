package trustkeys

import (
	"openvstorage/host/groupkeys"
	"openvstorage/trust"
)

// SwapTime bounds how long a swap goes on behind the context that it was given.
const SwapTime = groupkeys.SwapTime

// Keys implements trust.Store over a member of an Arakoon group: it has the errors of that.
type Keys = groupkeys.Keys

// Node is what Keys needs of a member: an *arakoon.Node.
type Node = groupkeys.Node

var _ trust.Store = (*Keys)(nil)

// New makes the keys of a node, which the caller closes after whoever uses the keys.
func New(n Node) *Keys { return &Keys{Node: n} }
