package cluster

import (
	"context"

	"openvstorage/alba/nsm/userfn"
	"openvstorage/arakoon"
)

// Node is what a client needs of a member of the cluster: an *arakoon.Node.
type Node interface {
	Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error)
	MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) ([][]byte, error)
	Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
}

// Client calls the functions of a cluster through one of its members and reads the keys
// that they keep. It implements userfn.Caller and userfn.Reader, for nsm.NewClient and
// abm.NewClient. Safe for concurrent use: calls made at the same time share a sync of
// the log.
//
// Errors of functions are *userfn.Error. All others are Arakoon's. A call that returned
// one of these can have taken effect only if the error matches
// arakoon.ErrUnknownOutcome.
type Client struct {
	node Node
}

// NewClient makes a client of a node, which the caller closes when no call is
// under way any more.
func NewClient(n Node) *Client { return &Client{node: n} }

var (
	_ userfn.Caller = (*Client)(nil)
	_ userfn.Reader = (*Client)(nil)
	_ Node          = (*arakoon.Node)(nil)
)

// Call runs a function. Its effects are durable and visible on return.
func (c *Client) Call(ctx context.Context, name string, version uint32, arg []byte) (result []byte, err error) {
	err = arakoon.Patiently(ctx, func() error {
		result, err = c.node.Call(ctx, name, version, arg)
		return err
	})
	if err != nil {
		return nil, fromState(err)
	}
	return result, nil
}

// MultiGet returns a value for each key, nil for one that is absent, all at
// one moment.
func (c *Client) MultiGet(ctx context.Context, keys [][]byte, how userfn.Consistency) (values [][]byte, err error) {
	err = arakoon.Patiently(ctx, func() error {
		values, err = c.node.MultiGet(ctx, consistency(how), keys...)
		return err
	})
	return values, err
}

// Range returns up to limit pairs from first to last, exclusive, in order, all
// at one moment.
func (c *Client) Range(ctx context.Context, first, last []byte, limit int, how userfn.Consistency) (pairs []userfn.Pair, err error) {
	if limit <= 0 {
		return nil, ctx.Err()
	}
	err = arakoon.Patiently(ctx, func() error {
		pairs = pairs[:0]
		return c.node.Range(ctx, consistency(how), first, last, limit, func(k, v []byte) bool {
			pairs = append(pairs, userfn.Pair{Key: k, Value: v})
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	return pairs, nil
}

func consistency(c userfn.Consistency) arakoon.Consistency {
	if c == userfn.Local {
		return arakoon.Local
	}
	return arakoon.Consistent
}
