package nsm

import (
	"context"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Client calls the functions of one NSM host and reads what they keep. Errors
// are those of this package, or the caller's own; after one of the caller's a
// call may or may not have taken effect, and may be repeated: every call that
// was made before does nothing again and succeeds, but for a ReplaceIf put or
// a delete under a condition on the object that it replaced or deleted itself,
// which may report ErrConflict unless the caller's session recognises it.
// Safe for concurrent use if the Caller and the Reader are.
type Client struct {
	caller userfn.Caller
	reader userfn.Reader
	puts   puts
}

// NewClient makes a client of one host.
func NewClient(c userfn.Caller, r userfn.Reader) *Client { return &Client{caller: c, reader: r} }

func (c *Client) call(ctx context.Context, name string, arg, result record.Record) error {
	return userfn.Invoke(ctx, c.caller, name, functionVersion, arg, result)
}

// Put puts an object that is whole on its OSDs: at least policy c fragments of
// each chunk, durable. Version, Revision and Time are given by the manager;
// ManifestSize is taken from Manifest. version is for ReplaceIf only. Durable
// on return. Puts that are made at once go to the host together, each for
// itself.
//
// Errors: ErrExists, ErrConflict by mode; ErrEpoch and ErrIDUsed: upload again
// under a new epoch or id; ErrOSD: fetch the OSDs, upload again; ErrSpread,
// ErrInvalid: the caller's mistake; ErrNamespaceNotFound.
func (c *Client) Put(ctx context.Context, ns uint64, mode Mode, version uint64, o *Object) (PutResult, error) {
	p := Put{Mode: mode, Version: version, Object: o}
	body, err := p.encode()
	if err != nil {
		return PutResult{}, err
	}
	return c.put(ctx, ns, body)
}

// Delete removes up to MaxNames objects, all or none, if cond holds (nil:
// always; else ErrConflict). Absent names are no error. Their fragments are
// to be deleted from then on. ErrInvalid also if they have too many fragments
// together: delete fewer at once; one alone is never refused.
func (c *Client) Delete(ctx context.Context, ns uint64, names []string, cond *Condition) (Removed, error) {
	arg := deleteArg{ns: ns, names: names}
	if cond != nil {
		arg.conditional, arg.cond = true, *cond
	}
	var r Removed
	err := c.call(ctx, nameDelete, &arg, &r)
	return r, err
}

// Update changes fragments of an object and returns its new revision. The
// object's version stays. Errors: ErrNotFound: the object is gone or another;
// ErrConflict: its fragments were changed since u.Revision, or the place of a
// late fragment was filled; ErrEpoch, ErrOSD, ErrSpread as for Put. After an
// error the new fragments are garbage, but for those that the object as it is
// now names: read it before deleting any.
func (c *Client) Update(ctx context.Context, ns uint64, u Update) (uint32, error) {
	var r revision
	err := c.call(ctx, nameUpdate, &updateArg{ns: ns, Update: u}, &r)
	return r.v, err
}

// OpenEpoch opens gc epoch `epoch`, which must be Next of those that Epochs
// returned, or one that is or was open. It returns the epochs then open.
func (c *Client) OpenEpoch(ctx context.Context, ns, epoch uint64) (Epochs, error) {
	var e Epochs
	err := c.call(ctx, nameOpenEpoch, &epochArg{ns, epoch}, &e)
	return e, err
}

// CloseEpoch closes gc epoch `epoch` and all before it: fragments written under
// them that no object names are garbage from then on. The newest cannot be
// closed (ErrConflict).
func (c *Client) CloseEpoch(ctx context.Context, ns, epoch uint64) (Epochs, error) {
	var e Epochs
	err := c.call(ctx, nameCloseEpoch, &epochArg{ns, epoch}, &e)
	return e, err
}

// MarkDeleted forgets up to MaxKeys fragments that are durably deleted on
// their OSD.
func (c *Client) MarkDeleted(ctx context.Context, osd uint64, keys []FragmentKey) (Step, error) {
	var s Step
	err := c.call(ctx, nameMarkDeleted, &doneArg{osd: osd, keys: keys}, &s)
	return s, err
}

// Deliver applies up to MaxMessages messages of the ABM, numbered from first
// on. It returns the number of the last message ever applied, up to which the
// ABM may be told that they were. ErrGap: some before first were not.
func (c *Client) Deliver(ctx context.Context, first uint64, messages []Message) (uint64, error) {
	var n number
	err := c.call(ctx, nameDeliver, &deliverArg{first: first, messages: messages}, &n)
	return n.v, err
}

// Cleanup takes up to limit objects (at most MaxNames) out of a namespace that
// is being removed; the last step removes the namespace.
func (c *Client) Cleanup(ctx context.Context, ns uint64, limit int) (Step, error) {
	var s Step
	err := c.call(ctx, nameCleanup, &cleanupArg{ns: ns, limit: uint32(min(max(limit, 1), MaxNames))}, &s)
	return s, err
}

// ForgetOSD forgets an OSD that was unlinked, once no object has fragments on
// it and none is to be deleted. Of a lost one it forgets, in steps, those that
// were to be deleted.
func (c *Client) ForgetOSD(ctx context.Context, osd uint64) (Step, error) {
	var s Step
	err := c.call(ctx, nameForgetOSD, &number{osd}, &s)
	return s, err
}
