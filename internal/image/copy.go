package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"openvstorage/internal/control"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

const (
	pieceSize  = 1 << 20 // bytes of one request
	pieces     = 16      // requests under way, each with its memory
	clusterLen = 4096    // zeros are left out in units of this
)

// span is a range of an image in bytes.
type span struct{ off, n int64 }

// dialNBD opens an export of a vDisk where it is served. The connection ends with ctx.
// The caller closes it.
func dialNBD(ctx context.Context, v control.VDisk, export string) (*nbdclient.Client, error) {
	var errs []error
	for _, uri := range v.URIs {
		c, err := dialURI(ctx, uri, nbdclient.Options{Export: export, InFlight: 2 * pieces})
		if err == nil {
			context.AfterFunc(ctx, c.Abort)
			return c, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("vDisk %q: not served over NBD", v.Name)
	}
	return nil, errors.Join(errs...)
}

func dialURI(ctx context.Context, uri string, opt nbdclient.Options) (*nbdclient.Client, error) {
	network, address, err := nbdAddress(uri)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		var done func()
		if address, done, err = control.SocketAddress(address); err != nil {
			return nil, err
		}
		defer done()
	}
	return nbdclient.Dial(ctx, network, address, opt)
}

// nbdAddress returns the address that an NBD URI of the server leads to.
func nbdAddress(uri string) (network, address string, err error) {
	u, err := nbdclient.ParseURI(uri)
	if err == nil && u.TLS {
		err = fmt.Errorf("%s needs a certificate, and this command has none: it uses the unix socket", uri)
	}
	return u.Network, u.Address, err
}

// allocated returns the ranges of an export that may hold something other than zeros, in
// order, each of at most a piece. It ends with the first error, which it yields.
func allocated(c *nbdclient.Client) iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		if !c.HasExtents() {
			for off := int64(0); off < c.Size(); off += pieceSize {
				if !yield(span{off, min(pieceSize, c.Size()-off)}, nil) {
					return
				}
			}
			return
		}
		for off := int64(0); off < c.Size(); {
			extents, err := c.BlockStatus(off, c.Size()-off)
			if err == nil && len(extents) == 0 {
				err = errors.New("the server tells no extents")
			}
			if err != nil {
				yield(span{}, fmt.Errorf("extents at offset %d: %w", off, err))
				return
			}
			for _, e := range extents {
				end := min(off+e.Length, c.Size())
				for ; off < end && !e.Hole && !e.Zero; off += min(pieceSize, end-off) {
					if !yield(span{off, min(pieceSize, end-off)}, nil) {
						return
					}
				}
				off = end
			}
		}
	}
}

// piece is a request under way, with its memory.
type piece struct {
	nbdclient.Request
	memory []byte
	ready  chan struct{} // gets one when the answer is there
}

func newPiece(command nbd.Command) *piece {
	p := &piece{memory: make([]byte, pieceSize), ready: make(chan struct{}, 1)}
	p.Type = command
	p.Done = func(*nbdclient.Request) { p.ready <- struct{}{} }
	return p
}

// readSpans reads ranges of an export, several at a time, and calls fn with them in
// order. When it returns nothing is under way any more.
func readSpans(c *nbdclient.Client, spans iter.Seq2[span, error], fn func(off int64, p []byte) error) error {
	queue, free := make(chan *piece, pieces), make(chan *piece, pieces)
	for range pieces {
		free <- newPiece(nbd.CmdRead)
	}
	stop := make(chan struct{}) // closed: nobody wants more
	var failed error            // of spans, to be looked at when queue is closed
	go func() {
		defer close(queue)
		for s, err := range spans {
			if err != nil {
				failed = err
				return
			}
			select {
			case p := <-free:
				p.Offset, p.Data = uint64(s.off), p.memory[:s.n]
				c.Start(&p.Request)
				queue <- p
			case <-stop:
				return
			}
		}
	}()
	var err error
	for p := range queue {
		<-p.ready
		if err == nil {
			if err = p.Err; err != nil {
				err = fmt.Errorf("read at offset %d: %w", p.Offset, err)
			} else {
				err = fn(int64(p.Offset), p.Data)
			}
			if err != nil {
				close(stop)
			}
		}
		free <- p
	}
	return errors.Join(err, failed)
}

// dataRuns returns the runs of clusters of p that are not all zeros. The last cluster
// may be cut short.
func dataRuns(p []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for at := 0; at < len(p); {
			end := at
			for end < len(p) && !isZero(p[end:min(end+clusterLen, len(p))]) {
				end = min(end+clusterLen, len(p))
			}
			if end > at && !yield(at, p[at:end]) {
				return
			}
			at = min(end+clusterLen, len(p)) // that one is zero, or the end
		}
	}
}

var zeros [clusterLen]byte

// isZero reports whether p, of at most a cluster, is all zeros.
func isZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }
