package proxy

import (
	"context"
	"fmt"
	"io"
	"slices"

	"openvstorage/backend"
	"openvstorage/internal/wire"
)

// namespace is the handle of one namespace. It holds nothing but its name.
type namespace struct {
	c    *Client
	name string
}

var (
	_ backend.Namespace = (*namespace)(nil)
	_ backend.Widths    = (*namespace)(nil)
)

func (n *namespace) what(name string) string { return name + " in namespace " + n.name }

// check refuses names that no proxy needs to see.
func (n *namespace) check(names ...string) error {
	for _, name := range append(names, n.name) {
		if err := backend.CheckName(name); err != nil {
			return err
		}
	}
	return nil
}

// Put implements backend.Namespace. It may be repeated: see the package.
func (n *namespace) Put(ctx context.Context, name string, data []byte) error {
	_, err := n.put(ctx, opPut, repeats, name, data, 0)
	return err
}

// PutIf implements backend.Namespace. It is not repeated once a proxy may have done it.
func (n *namespace) PutIf(ctx context.Context, name string, data []byte, version backend.Version) (backend.Version, error) {
	return n.put(ctx, opPutIf, once, name, data, version)
}

func (n *namespace) put(ctx context.Context, op uint16, class class, name string, data []byte, version backend.Version) (v backend.Version, err error) {
	if err := n.check(name); err != nil {
		return 0, err
	}
	q := asked{op: op, class: class, what: n.what(name)}
	p := putting{object: object{n.name, name}, version: version}
	switch {
	case len(data) == 0:
		q.header = p.append(nil, op)
	case len(data) <= wire.BodyMax:
		q.header, q.body = p.append(nil, op), [][]byte{data}
	default:
		q.send = func(ctx context.Context, to *peer) (*wire.Reply, error) { return n.putLong(ctx, to, op, p, data) }
	}
	err = n.c.ask(ctx, q, func(r *wire.Reply) error {
		f := read(r.Header)
		if op == opPutIf {
			v = backend.Version(f.U64())
		}
		return f.End()
	})
	return v, err
}

// putLong has the proxy put together what is longer than a request. What fails before the last
// request has changed nothing.
func (n *namespace) putLong(ctx context.Context, to *peer, op uint16, p putting, data []byte) (*wire.Reply, error) {
	p.held = n.c.numbers.Add(1)
	for at := 0; at < len(data); {
		piece := data[at:min(len(data), at+wire.BodyMax)]
		h := part{held: p.held, size: int64(len(data)), at: int64(at)}
		reply, err := n.c.request(ctx, to, opHold, h.append(nil), [][]byte{piece})
		if err != nil {
			if outcomeOf(err) == unknown {
				err = fmt.Errorf("%w: a part did not arrive: %w", wire.ErrNotSent, err)
			}
			return nil, err
		}
		reply.Release()
		at += len(piece)
	}
	return n.c.request(ctx, to, op, p.append(nil, op), nil)
}

// Get implements backend.Namespace.
func (n *namespace) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := n.check(name); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("object %s: read at %d", name, off)
	}
	if len(p) <= wire.BodyMax {
		return n.get(ctx, name, p, off)
	}
	return n.getLong(ctx, name, p, off)
}

// get is a Get of one request.
func (n *namespace) get(ctx context.Context, name string, p []byte, off int64) (got int, err error) {
	g := getting{object: object{n.name, name}, off: off, n: uint32(len(p))}
	var ends bool
	err = n.c.ask(ctx, asked{op: opGet, what: n.what(name), header: g.append(nil)}, func(r *wire.Reply) error {
		f := read(r.Header)
		ends = f.Flag()
		if err := f.End(); err != nil {
			return err
		}
		if len(r.Body) > len(p) || len(r.Body) < len(p) && !ends {
			return fmt.Errorf("%w: %d bytes of %d", errBytes, len(r.Body), len(p))
		}
		got = copy(p, r.Body)
		return nil
	})
	if err == nil && ends {
		err = io.EOF
	}
	return got, err
}

// longTries is how often a long Get is begun again because the object changed meanwhile.
const longTries = 4

// getLong is a Get of several requests. They are of one state of the object if its version is the
// same before and after them, as no other state of it ever has that version.
func (n *namespace) getLong(ctx context.Context, name string, p []byte, off int64) (int, error) {
	for range longTries {
		before, err := n.Stat(ctx, name)
		if err != nil {
			return 0, err
		}
		got, err := n.getParts(ctx, name, p, off)
		if err != nil && err != io.EOF {
			return 0, err
		}
		after, serr := n.Stat(ctx, name)
		if serr != nil {
			return 0, serr
		}
		if before.Version == after.Version {
			return got, err
		}
	}
	return 0, fmt.Errorf("get %s: it was replaced %d times while its %d bytes were read", n.what(name), longTries, len(p))
}

func (n *namespace) getParts(ctx context.Context, name string, p []byte, off int64) (got int, err error) {
	for got < len(p) {
		m, err := n.get(ctx, name, p[got:min(len(p), got+wire.BodyMax)], off+int64(got))
		got += m
		if err != nil {
			return got, err
		}
	}
	return got, nil
}

// Stat implements backend.Namespace.
func (n *namespace) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	if err := n.check(name); err != nil {
		return info, err
	}
	q := asked{op: opStat, what: n.what(name), header: object{n.name, name}.append(nil)}
	err = n.c.ask(ctx, q, func(r *wire.Reply) error {
		f := read(r.Header)
		info = backend.Info{Name: name, Size: f.size(), Version: backend.Version(f.U64())}
		return f.End()
	})
	return info, err
}

// Delete implements backend.Namespace. It may be repeated: see the package. More than 65536 names
// are deleted in several steps, the object of the condition in the last one.
func (n *namespace) Delete(ctx context.Context, names []string, cond *backend.Condition) error {
	if err := n.check(names...); err != nil {
		return err
	}
	if cond != nil {
		if err := n.check(cond.Name); err != nil {
			return err
		}
	}
	if cond != nil && len(names) > deleteMax {
		if i := slices.Index(names, cond.Name); i >= 0 {
			names = append(slices.Delete(slices.Clone(names), i, i+1), cond.Name)
		}
	}
	for {
		d := deletion{n.name, names[:min(len(names), deleteMax)], cond}
		q := asked{op: opDelete, class: repeats, what: fmt.Sprintf("%d objects in namespace %s", len(d.names), n.name), header: d.header()}
		if len(d.names) > 0 {
			q.body = [][]byte{appendNames(nil, d.names)}
		}
		if err := n.c.ask(ctx, q, nil); err != nil {
			return err
		}
		if names = names[len(d.names):]; len(names) == 0 {
			return nil
		}
	}
}

// List implements backend.Namespace. It asks for a page at a time.
func (n *namespace) List(ctx context.Context, prefix string, fn func(backend.Info) bool) error {
	if err := n.check(); err != nil {
		return err
	}
	// No name is longer, so that what is cut off changes nothing.
	l := listing{namespace: n.name, prefix: prefix[:min(len(prefix), backend.NameMax+1)], limit: pageMax}
	for {
		var page []backend.Info
		more := false
		err := n.c.ask(ctx, asked{op: opList, what: "namespace " + n.name, header: l.append(nil)}, func(r *wire.Reply) error {
			var count uint32
			var err error
			if count, more, err = decodePage(r.Header); err == nil {
				page, err = decodeInfos(count, r.Body)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, i := range page {
			if !fn(i) {
				return nil
			}
		}
		if !more || len(page) == 0 {
			return nil
		}
		l.after = page[len(page)-1].Name
	}
}

// Narrow implements backend.Widths. Of a store that accepts nothing below full width nothing is
// narrow.
func (n *namespace) Narrow(ctx context.Context, names []string) (narrow []string, err error) {
	if err := n.check(names...); err != nil {
		return nil, err
	}
	for len(names) > 0 {
		page := names[:min(len(names), pageMax)]
		names = names[len(page):]
		header := le.AppendUint32(appendName(nil, n.name), uint32(len(page)))
		q := asked{op: opNarrow, what: "namespace " + n.name, header: header, body: [][]byte{appendNames(nil, page)}}
		err := n.c.ask(ctx, q, func(r *wire.Reply) error {
			some, _, err := decodeNamesPage(r, pageMax)
			narrow = append(narrow, some...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return narrow, nil
}
