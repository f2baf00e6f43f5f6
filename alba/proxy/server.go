package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// Admit decides whether a peer may use the proxy at all, and which operations: OpName names them,
// and Writes says which change something. Its error is told to the peer.
type Admit func(ctx context.Context, p *wire.Peer) (may func(op uint16) error, err error)

// Anyone admits every peer to everything. It is for a unix socket, whose file mode says who
// reaches it.
func Anyone(context.Context, *wire.Peer) (func(op uint16) error, error) {
	return func(uint16) error { return nil }, nil
}

// ServerOptions are for NewServer. ID and Open must be given.
type ServerOptions struct {
	ID uuid.UUID // of the store: whoever names another one is refused
	// Open returns the store, or false while there is none. It is asked for each request, and
	// must not block.
	Open func() (backend.Store, bool)

	Held    int64 // bytes of puts that are longer than a request, of all connections; default 256 MiB, and no object may be longer
	Answers int64 // bytes of reads on their way out, of all connections; default 256 MiB, 32 MiB at least
}

// Server answers for a store. Its Service is for a wire.Server. Safe for concurrent use.
type Server struct {
	o       ServerOptions
	held    *room
	answers *room
	pool    *wire.Pool
	counts  counters
	serving serving
}

// NewServer makes a server of a store, which belongs to the caller.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Held == 0 {
		o.Held = 256 << 20
	}
	if o.Answers == 0 {
		o.Answers = 256 << 20
	}
	if o.ID == uuid.Nil || o.Open == nil || o.Held < 1 || o.Answers < wire.BodyMax {
		return nil, fmt.Errorf("proxy: ServerOptions.ID and Open must be given, Held be over 0 and Answers %d at least; they are %d and %d", wire.BodyMax, o.Held, o.Answers)
	}
	return &Server{o: o, held: newRoom(o.Held), answers: newRoom(o.Answers), pool: wire.NewPool(0, 64<<20), counts: counters{by: make(map[string]*counted)}, serving: newServing()}, nil
}

// Close ends the use of the store. Requests that come from now on are refused, those under way may
// go on until ctx ends, and are cancelled then. When it returns nobody uses the store any more.
func (s *Server) Close(ctx context.Context) { s.serving.end(ctx) }

// Stats are the counts of each namespace, sorted by name. Others comes first, if it is there.
func (s *Server) Stats() []NamespaceStats { return s.counts.all() }

// connection is what the server knows of one.
type connection struct {
	may     func(op uint16) error
	held    *holds
	answers *shareOf
	sum     bool // bytes pass a network
}

// Service is what a wire.Server offers as Service. Without an admit it refuses everybody.
func (s *Server) Service(admit Admit) wire.Service {
	return wire.Service{
		Handler: wire.HandlerFunc(s.serve),
		Life:    func(group string) (life uint64, ok bool) { return 0, group == "" || group == s.o.ID.String() },
		Admit: func(ctx context.Context, p *wire.Peer) error {
			if admit == nil {
				return errors.New("this proxy was not told whom to serve")
			}
			may, err := admit(ctx, p)
			if err == nil && may == nil {
				err = errors.New("this proxy was not told what the peer may do")
			}
			if err != nil {
				return err
			}
			p.Value = &connection{may: may, held: &holds{room: s.held.connection(), by: make(map[uint64]*hold)}, answers: s.answers.connection(), sum: summed(p.Addr)}
			return nil
		},
	}
}

// summed reports whether the wire is to checksum what passes it. On a unix socket the bytes never
// leave the memory of this machine.
func summed(a net.Addr) bool { return a == nil || a.Network() != "unix" }

// job is a request while it is served.
type job struct {
	*Server
	c         *connection
	r         *wire.Incoming
	store     backend.Store
	namespace string // that it is about; set when the header was read
	bytes     int    // of an object that it put or read
}

func (s *Server) serve(ctx context.Context, r *wire.Incoming) wire.Answer {
	c := r.Peer.Value.(*connection)
	if err := c.may(r.Op); err != nil {
		return wire.Answer{Status: uint16(wire.CodeDenied), Header: words(err)}
	}
	ctx, leave := s.serving.begin(ctx)
	if leave == nil {
		return failed(fmt.Errorf("%w: the proxy stops", backend.ErrClosed))
	}
	defer leave()
	store, ok := s.o.Open()
	if !ok {
		return failed(fmt.Errorf("%w: the proxy has no backend now: it starts", backend.ErrClosed))
	}
	j := &job{Server: s, c: c, r: r, store: store}
	began := time.Now()
	a, known, err := j.do(ctx)
	if !known {
		return wire.Answer{Status: uint16(wire.CodeUnknownOp)}
	}
	if r.Op < opHold {
		s.counts.note(r.Op, j.namespace, j.bytes, time.Since(began), bad(err))
	}
	if err != nil {
		return failed(err)
	}
	return a
}

// bad reports whether an error is one that an operator cares about. That a name is free or taken
// is an answer.
func bad(err error) bool {
	for _, answer := range []error{backend.ErrNotFound, backend.ErrExists, backend.ErrConflict, backend.ErrNamespaceNotFound, backend.ErrNamespaceExists} {
		if errors.Is(err, answer) {
			return false
		}
	}
	return err != nil
}

func (j *job) do(ctx context.Context) (a wire.Answer, known bool, err error) {
	switch j.r.Op {
	case opPut, opPutIf:
		a, err = j.put(ctx)
	case opGet:
		a, err = j.get(ctx)
	case opStat:
		a, err = j.stat(ctx)
	case opDelete:
		err = j.delete(ctx)
	case opList:
		a, err = j.list(ctx)
	case opNarrow:
		a, err = j.narrow(ctx)
	case opCreate, opRemove:
		err = j.change(ctx)
	case opNamespaces:
		a, err = j.namespaces(ctx)
	case opUsage:
		a, err = j.usage(ctx)
	case opHold:
		err = j.hold(ctx)
	case opStats:
		a, err = j.stats()
	case opIdentify:
		a.Header = append(a.Header, j.o.ID[:]...)
	default:
		return a, false, nil
	}
	return a, true, err
}

// in is the namespace that the request names. What is no name is not looked up, nor counted.
func (j *job) in(name string) (backend.Namespace, error) {
	if err := backend.CheckName(name); err != nil {
		return nil, fmt.Errorf("namespace: %w", err)
	}
	j.namespace = name
	return j.store.Namespace(name), nil
}

func (j *job) put(ctx context.Context) (a wire.Answer, err error) {
	p, err := decodePutting(j.r.Op, j.r.Header)
	if err != nil {
		return a, err
	}
	data := j.r.Body
	if p.held != 0 {
		whole, err := j.c.held.take(p.held)
		if err != nil {
			return a, err
		}
		defer whole.back()
		if whole.got < int64(len(whole.b)) || len(j.r.Body) > 0 {
			return a, fmt.Errorf("%w: %d of the %d bytes of a put came, and %d with its end", errBytes, whole.got, len(whole.b), len(j.r.Body))
		}
		data = whole.b
	}
	ns, err := j.in(p.namespace)
	if err != nil {
		return a, err
	}
	if j.r.Op == opPut {
		err = ns.Put(ctx, p.name, data)
	} else {
		var v backend.Version
		v, err = ns.PutIf(ctx, p.name, data, p.version)
		a.Header = le.AppendUint64(nil, uint64(v))
	}
	if err == nil {
		j.bytes = len(data)
	}
	return a, err
}

func (j *job) hold(ctx context.Context) error {
	p, err := decodePart(j.r.Header)
	if err != nil {
		return err
	}
	if p.held == 0 || p.size < 1 {
		return fmt.Errorf("%w: a put of %d bytes under number %d", errBytes, p.size, p.held)
	}
	return j.c.held.put(ctx, p, j.r.Body)
}

func (j *job) get(ctx context.Context) (a wire.Answer, err error) {
	g, err := decodeGetting(j.r.Header)
	if err != nil {
		return a, err
	}
	if g.n > wire.BodyMax {
		return a, fmt.Errorf("%w: a get of %d bytes, at most %d may be", errBytes, g.n, wire.BodyMax)
	}
	ns, err := j.in(g.namespace)
	if err != nil {
		return a, err
	}
	back, err := j.c.answers.take(ctx, int64(g.n))
	if err != nil {
		return a, err
	}
	b := j.pool.Get(int(g.n))
	n, err := ns.Get(ctx, g.name, b.Bytes(), g.off)
	if err != nil && err != io.EOF {
		b.Release()
		back()
		return a, err
	}
	j.bytes = n
	a.Header, a.Sum = appendFlag(nil, err == io.EOF), j.c.sum
	a.Body = wire.Wrap(func() { b.Release(); back() }, b.Bytes()[:n])
	return a, nil
}

func (j *job) stat(ctx context.Context) (a wire.Answer, err error) {
	f := read(j.r.Header)
	o := f.object()
	if err := f.End(); err != nil {
		return a, err
	}
	ns, err := j.in(o.namespace)
	if err != nil {
		return a, err
	}
	info, err := ns.Stat(ctx, o.name)
	a.Header = le.AppendUint64(le.AppendUint64(nil, uint64(info.Size)), uint64(info.Version))
	return a, err
}

func (j *job) delete(ctx context.Context) error {
	d, err := decodeDeletion(j.r.Header, j.r.Body)
	if err != nil {
		return err
	}
	ns, err := j.in(d.namespace)
	if err != nil {
		return err
	}
	return ns.Delete(ctx, d.names, d.cond)
}

// pager is a namespace that lists from behind a name on. Of others all that comes before is
// listed, and left out.
type pager interface {
	ListAfter(ctx context.Context, prefix, after string, fn func(backend.Info) bool) error
}

func (j *job) list(ctx context.Context) (a wire.Answer, err error) {
	l, err := decodeListing(j.r.Header)
	if err != nil {
		return a, err
	}
	ns, err := j.in(l.namespace)
	if err != nil {
		return a, err
	}
	limit := int(min(l.limit, pageMax))
	if limit == 0 {
		return a, fmt.Errorf("%w: a list of no objects", errBytes)
	}
	var body []byte
	count, more := 0, false
	each := func(i backend.Info) bool {
		if i.Name <= l.after {
			return true
		}
		if more = count >= limit; !more {
			body = appendInfo(body, i)
			count++
		}
		return !more
	}
	if p, ok := ns.(pager); ok && l.after != "" {
		err = p.ListAfter(ctx, l.prefix, l.after, each)
	} else {
		err = ns.List(ctx, l.prefix, each)
	}
	return j.page(count, more, body), err
}

// page is an answer with a page of things.
func (j *job) page(count int, more bool, body []byte) wire.Answer {
	return wire.Answer{Header: appendPage(nil, count, more), Body: wire.Wrap(nil, body), Sum: j.c.sum}
}

func (j *job) narrow(ctx context.Context) (a wire.Answer, err error) {
	f := read(j.r.Header)
	name, count := f.name(), f.U32()
	if err := f.End(); err != nil {
		return a, err
	}
	names, err := decodeNames(count, j.r.Body, pageMax)
	if err != nil {
		return a, err
	}
	ns, err := j.in(name)
	if err != nil {
		return a, err
	}
	if w, ok := ns.(backend.Widths); ok {
		names, err = w.Narrow(ctx, names)
	} else {
		names = nil // it accepts nothing below full width
	}
	return j.page(len(names), false, appendNames(nil, names)), err
}

func (j *job) change(ctx context.Context) error {
	f := read(j.r.Header)
	name := f.name()
	if err := f.End(); err != nil {
		return err
	}
	if _, err := j.in(name); err != nil {
		return err
	}
	if j.r.Op == opCreate {
		return j.store.CreateNamespace(ctx, name)
	}
	return j.store.DeleteNamespace(ctx, name)
}

func (j *job) namespaces(ctx context.Context) (a wire.Answer, err error) {
	f := read(j.r.Header)
	after := f.name()
	if err := f.End(); err != nil {
		return a, err
	}
	names, err := j.store.ListNamespaces(ctx)
	if err != nil {
		return a, err
	}
	from, found := slices.BinarySearchFunc(names, after, strings.Compare)
	if found {
		from++
	}
	names = names[from:]
	page := names[:min(len(names), deleteMax)]
	return j.page(len(page), len(page) < len(names), appendNames(nil, page)), nil
}

func (j *job) usage(ctx context.Context) (a wire.Answer, err error) {
	used, free, err := j.store.Usage(ctx)
	a.Header = le.AppendUint64(le.AppendUint64(nil, used), free)
	return a, err
}

func (j *job) stats() (a wire.Answer, err error) {
	all := j.counts.all()
	var body []byte
	for i := range all {
		body = appendStats(body, &all[i])
	}
	return j.page(len(all), false, body), nil
}
