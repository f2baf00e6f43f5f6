package client

import (
	"context"
	"sync/atomic"

	"openvstorage/alba/manifest"
	"openvstorage/alba/object"
)

// coder is the memory of one upload: an encoder and room for two chunks, one
// being encoded while the other is written.
type coder struct {
	encoder object.Encoder
	coded   [2]coded
	// users are the upload itself and each fragment write under way: the memory
	// is theirs until the last is done, even if the upload has returned.
	users atomic.Int32
}

// coded is the fragments of one chunk.
type coded struct{ object.Coded }

func (x *coder) reset(m *manifest.Manifest, master []byte) error {
	return x.encoder.Reset(object.Params{Namespace: m.Namespace, Object: m.Object, Policy: m.Policy, Scheme: m.Scheme, Master: master})
}

// takeCoder waits for one of the coders, of which there are Options.Uploads.
func (c *Client) takeCoder(ctx context.Context) (*coder, error) {
	select {
	case x := <-c.coders:
		if x == nil {
			x = new(coder)
		}
		x.users.Store(1)
		return x, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// giveCoder ends one use of a coder.
func (c *Client) giveCoder(x *coder) {
	if x.users.Add(-1) == 0 {
		c.coders <- x
	}
}

// Trim gives idle memory back: that of coders and of read buffers.
func (c *Client) Trim() {
	c.buffers.drop()
	for range cap(c.coders) {
		select {
		case <-c.coders:
			c.coders <- nil
		default:
			return
		}
	}
}
