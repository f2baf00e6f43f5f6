package abm

import (
	"context"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Client calls the functions of the ABM and reads what they keep. Its errors are those of
// this package, or those of the Caller. After an error of the Caller a call may or may not
// have taken effect. All calls are durable on return. Safe for concurrent use if the Caller
// and the Reader are.
type Client struct {
	caller userfn.Caller
	reader userfn.Reader
}

// NewClient makes a client of the ABM.
func NewClient(c userfn.Caller, r userfn.Reader) *Client { return &Client{caller: c, reader: r} }

func (c *Client) call(ctx context.Context, name string, arg, result record.Record) error {
	return userfn.Invoke(ctx, c.caller, name, functionVersion, arg, result)
}

// do is call of a function that returns nothing.
func (c *Client) do(ctx context.Context, name string, arg record.Record) error {
	return c.call(ctx, name, arg, &userfn.Empty{})
}

// Init gives the backend its id. Repeating it is no error; another id is ErrExists.
func (c *Client) Init(ctx context.Context, id [16]byte) error {
	return c.do(ctx, nameInit, &idArg{id})
}

// RegisterOSD makes an OSD known: its LongID, Node, Endpoint, Capacity, Used and Zone. If the
// OSD is known already, it brings Node, Endpoint, Capacity and, if not empty, Zone up to
// date. The Node of a claimed OSD must not change (ErrConflict).
func (c *Client) RegisterOSD(ctx context.Context, o OSD) error {
	return c.do(ctx, nameRegister, &OSD{LongID: o.LongID, Node: o.Node, Endpoint: o.Endpoint, Zone: o.Zone, Health: o.Health})
}

// ClaimOSD takes an available OSD into the backend and returns its number.
// The caller has written our ownership record on the device before: that record decides
// between two backends. Repeating the call is no error. An OSD that is draining or lost
// cannot be claimed (ErrConflict).
func (c *Client) ClaimOSD(ctx context.Context, long [16]byte) (uint64, error) {
	return c.ReplaceOSD(ctx, 0, long)
}

// ReplaceOSD claims an OSD in place of the one numbered old, which is lost from then on. The
// claimed OSD gets a number of its own.
func (c *Client) ReplaceOSD(ctx context.Context, old uint64, long [16]byte) (uint64, error) {
	var n number
	err := c.call(ctx, nameClaim, &claimArg{long: long, replaces: old}, &n)
	return n.v, err
}

// DecommissionOSD has an OSD take no new fragments, so that it can be drained.
func (c *Client) DecommissionOSD(ctx context.Context, osd uint64) error {
	return c.do(ctx, nameRetire, &retireArg{osd: osd})
}

// LoseOSD gives an OSD up with all that it holds.
func (c *Client) LoseOSD(ctx context.Context, osd uint64) error {
	return c.do(ctx, nameRetire, &retireArg{osd: osd, lost: true})
}

// PurgeOSD forgets an OSD that is draining or lost (else ErrInUse). Call it
// when its unlink was delivered to every NSM host and nsm.Client.ForgetOSD is
// done on all of them.
func (c *Client) PurgeOSD(ctx context.Context, osd uint64) error {
	return c.do(ctx, namePurge, &number{osd})
}

// UpdateHealth enters news of up to MaxUpdates OSDs.
func (c *Client) UpdateHealth(ctx context.Context, updates []HealthUpdate) error {
	return c.do(ctx, nameHealth, &healthArg{updates})
}

// PutPreset creates a preset (version 0), or replaces the data of a preset that has the
// given version. The caller has validated data. It returns the new version. ErrExists,
// ErrConflict: the preset has other data, or another version.
func (c *Client) PutPreset(ctx context.Context, name string, version uint64, data []byte) (uint64, error) {
	var n number
	err := c.call(ctx, namePutPreset, &presetArg{name: name, version: version, data: data}, &n)
	return n.v, err
}

// DeletePreset deletes a preset that no namespace has (else ErrInUse).
func (c *Client) DeletePreset(ctx context.Context, name string) error {
	return c.do(ctx, nameDeletePreset, &nameArg{name})
}

// SetDefaultPreset names the preset of namespaces that name none.
func (c *Client) SetDefaultPreset(ctx context.Context, name string) error {
	return c.do(ctx, nameSetDefault, &nameArg{name})
}

// CreateNamespace gives a namespace a number, a preset ("": the default) and
// an NSM host. The namespace can be used once its host's messages are delivered, which the
// caller does next. ErrNamespaceExists, ErrNotFound (preset), ErrNoHost.
func (c *Client) CreateNamespace(ctx context.Context, name, preset string) (Namespace, error) {
	var n Namespace
	err := c.call(ctx, nameCreate, &createArg{name: name, preset: preset}, &n)
	return n, err
}

// DeleteNamespace frees the name at once. What is in the namespace can be read
// and written by its number until its host's messages are delivered, which
// the caller does next. ErrNamespaceNotFound; ErrInUse: it is being moved.
func (c *Client) DeleteNamespace(ctx context.Context, name string) (Namespace, error) {
	var n Namespace
	err := c.call(ctx, nameDelete, &nameArg{name}, &n)
	return n, err
}

// PutHost adds an NSM host, or changes its endpoint and whether it takes new
// namespaces, and returns its number.
func (c *Client) PutHost(ctx context.Context, name string, endpoint []byte, closed bool) (uint64, error) {
	var n number
	err := c.call(ctx, namePutHost, &hostArg{name: name, endpoint: endpoint, closed: closed}, &n)
	return n.v, err
}

// MarkDelivered takes messages up to last off a host's queue, at most MaxMessages. It returns
// the number of the last message that is off the queue.
func (c *Client) MarkDelivered(ctx context.Context, host, last uint64) (uint64, error) {
	var n number
	err := c.call(ctx, nameMarkDelivered, &deliveredArg{host: host, last: last}, &n)
	return n.v, err
}

// TakeLease moves a lease from the counter that the caller saw last (0: never
// taken) to the next, and makes holder its holder. ErrLease: somebody has moved it since.
func (c *Client) TakeLease(ctx context.Context, name string, counter uint64, holder string) (Lease, error) {
	var l Lease
	err := c.call(ctx, nameLease, &leaseArg{name: name, counter: counter, holder: holder}, &l)
	return l, err
}
