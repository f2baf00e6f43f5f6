package nsm

import (
	"context"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Client calls the functions of one NSM host and reads what they keep. Its errors
// are those of this package, or those of the Caller. After an error of the Caller a
// call may or may not have taken effect, and may be repeated: a call that took
// effect does nothing the second time and succeeds. The exceptions are a ReplaceIf
// put, and a delete under a condition on the object that it deleted itself: they may
// report ErrConflict unless the Caller's session recognises them. Safe for concurrent
// use if the Caller and the Reader are.
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

// Put puts an object of which at least policy c fragments of each chunk are
// durable on their OSDs. The manager sets Version, Revision and Time, and takes
// ManifestSize from Manifest. version is for ReplaceIf only. The put is durable on
// return. Puts that are made at the same time go to the host in one call, and each
// has its own result.
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

// Delete removes up to MaxNames objects, all or none, if cond holds (nil: always;
// else ErrConflict). Absent names are no error. The fragments of the objects are to be
// deleted from then on. ErrInvalid also says that the objects have too many fragments
// together: delete fewer at once; a single object is never refused.
func (c *Client) Delete(ctx context.Context, ns uint64, names []string, cond *Condition) (Removed, error) {
	arg := deleteArg{ns: ns, names: names}
	if cond != nil {
		arg.conditional, arg.cond = true, *cond
	}
	var r Removed
	err := c.call(ctx, nameDelete, &arg, &r)
	return r, err
}

// Update changes fragments of an object and returns its new revision. The object's
// version stays. Errors: ErrNotFound: the object is gone, or another has its name;
// ErrConflict: its fragments were changed since u.Revision, or the place of a late
// fragment was filled; ErrEpoch, ErrOSD, ErrSpread as for Put. After an error the new
// fragments are garbage, except those that the object names now: read the object
// before deleting any.
func (c *Client) Update(ctx context.Context, ns uint64, u Update) (uint32, error) {
	var r revision
	err := c.call(ctx, nameUpdate, &updateArg{ns: ns, Update: u}, &r)
	return r.v, err
}

// OpenEpoch opens gc epoch `epoch`: the Next that Epochs returned. For an epoch that is
// or was open it does nothing. It returns the epochs that are open then.
func (c *Client) OpenEpoch(ctx context.Context, ns, epoch uint64) (Epochs, error) {
	var e Epochs
	err := c.call(ctx, nameOpenEpoch, &epochArg{ns, epoch}, &e)
	return e, err
}

// CloseEpoch closes gc epoch `epoch` and all before it. From then on, fragments that
// were written under them and that no object names are garbage. The newest epoch
// cannot be closed (ErrConflict).
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
// on. It returns the number of the last message ever applied; the ABM may be told that
// all up to it were. ErrGap: some before first were not applied.
func (c *Client) Deliver(ctx context.Context, first uint64, messages []Message) (uint64, error) {
	var n number
	arg := deliverArg{first: first, messages: messages}
	for i := range messages {
		if messages[i].Needs() >= messageHosts {
			err := userfn.Invoke(ctx, c.caller, nameDeliver, deliverHostsVersion, &deliverHostsArg{arg}, &n)
			return n.v, err
		}
	}
	err := c.call(ctx, nameDeliver, &arg, &n)
	return n.v, err
}

// Cleanup takes up to limit objects (at most MaxNames) out of a namespace that
// is being removed; the last step removes the namespace.
func (c *Client) Cleanup(ctx context.Context, ns uint64, limit int) (Step, error) {
	var s Step
	err := c.call(ctx, nameCleanup, &cleanupArg{ns: ns, limit: uint32(min(max(limit, 1), MaxNames))}, &s)
	return s, err
}

// ForgetOSD forgets an OSD that was unlinked, once no object has fragments on it and
// none on it is to be deleted. If the OSD is lost, it first forgets, in steps, the
// fragments that were to be deleted.
func (c *Client) ForgetOSD(ctx context.Context, osd uint64) (Step, error) {
	var s Step
	err := c.call(ctx, nameForgetOSD, &number{osd}, &s)
	return s, err
}
