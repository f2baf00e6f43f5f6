package kvclient

import (
	"context"
	"time"

	"openvstorage/arakoon"

	"github.com/google/uuid"
)

// Set sets a key. The revision is for arakoon.AtLeast, as those of the other writes.
func (c *Client) Set(ctx context.Context, key, value []byte) (revision uint64, err error) {
	revision, _, err = c.Write(ctx, new(arakoon.Sequence).Set(key, value))
	return revision, err
}

// Delete deletes a key; *arakoon.ErrNotFound if it is absent.
func (c *Client) Delete(ctx context.Context, key []byte) (revision uint64, err error) {
	revision, _, err = c.Write(ctx, new(arakoon.Sequence).Delete(key))
	return revision, err
}

// DeletePrefix deletes all keys with a prefix, and says how many.
func (c *Client) DeletePrefix(ctx context.Context, prefix []byte) (count, revision uint64, err error) {
	revision, results, err := c.Write(ctx, new(arakoon.Sequence).DeletePrefix(prefix))
	if err != nil {
		return 0, 0, err
	}
	return results[0].Count, revision, nil
}

// TestAndSet sets a key to wanted (nil: deletes it) if it has the value expected (nil: is
// absent). It returns the value before, nil if there was none, whether or not it was as
// expected.
func (c *Client) TestAndSet(ctx context.Context, key, expected, wanted []byte) (old []byte, revision uint64, err error) {
	return c.old(ctx, new(arakoon.Sequence).TestAndSet(key, expected, wanted))
}

// Replace sets a key to wanted (nil: deletes it), and returns the value before, nil if there
// was none.
func (c *Client) Replace(ctx context.Context, key, wanted []byte) (old []byte, revision uint64, err error) {
	return c.old(ctx, new(arakoon.Sequence).Replace(key, wanted))
}

func (c *Client) old(ctx context.Context, seq *arakoon.Sequence) ([]byte, uint64, error) {
	revision, results, err := c.Write(ctx, seq)
	if err != nil || !results[0].Found {
		return nil, revision, err
	}
	return append([]byte{}, results[0].Value...), revision, nil
}

// Nop has the group commit a write that changes nothing.
func (c *Client) Nop(ctx context.Context) (revision uint64, err error) {
	revision, _, err = c.Write(ctx, new(arakoon.Sequence))
	return revision, err
}

// Acquire grants a lease, or fails with arakoon.ErrLeaseHeld. Leases are as at
// arakoon.LeaseCalls.
func (c *Client) Acquire(ctx context.Context, name string, owner uuid.UUID, ttl time.Duration) (arakoon.Lease, error) {
	revision, results, err := c.Write(ctx, new(arakoon.Sequence).Acquire(name, owner, ttl))
	if err != nil {
		return arakoon.Lease{}, err
	}
	return arakoon.Lease{Name: name, Owner: owner, Fence: results[0].Count, Renewed: revision, TTL: ttl}, nil
}

// Renew begins the time to live of a lease anew, or fails with arakoon.ErrLeaseLost.
func (c *Client) Renew(ctx context.Context, held arakoon.Lease) (arakoon.Lease, error) {
	revision, _, err := c.Write(ctx, new(arakoon.Sequence).Renew(held.Name, held.Fence, held.TTL))
	if err != nil {
		return arakoon.Lease{}, err
	}
	held.Renewed = revision
	return held, nil
}

// Release ends a lease. It is no error if the lease has ended before.
func (c *Client) Release(ctx context.Context, held arakoon.Lease) error {
	_, err := c.Do(ctx, new(arakoon.Sequence).Release(held.Name, held.Fence))
	return err
}
