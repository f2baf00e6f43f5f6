package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Options are the options of a Server. In each field but Host zero has a meaning.
type Options struct {
	Host   Host
	Status Status
	// ALBA is the backend of the vDisks if that is ALBA. Nil: it is not, and ALBA calls
	// are refused.
	ALBA ALBA
	// Cluster is the cluster that the host is in. Nil: it is in none, and calls about it are
	// refused.
	Cluster Cluster
	// Arakoon is the groups that the process has members of. Nil: it has none.
	Arakoon Arakoon
	// Refuse, if not nil, is why this server has no vDisks and no backend: calls about
	// these fail with it, and Host may be nil.
	Refuse error
	// Devices makes block devices. Nil: this server makes none.
	Devices Devices
	// URIs names the NBD URIs of a vDisk. Nil: none.
	URIs   func(vdisk string) []string
	Logger *slog.Logger // nil: none
	// Calls is how many calls may run at once. Further calls are answered "busy".
	// Default 64.
	Calls int
	// BodyTimeout is how long a client may take to send a request. Default 10 s.
	BodyTimeout time.Duration
}

func (o *Options) ensureDefaults() {
	if o.URIs == nil {
		o.URIs = func(string) []string { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Calls == 0 {
		o.Calls = 64
	}
	if o.BodyTimeout == 0 {
		o.BodyTimeout = 10 * time.Second
	}
	if o.Status.PID == 0 {
		o.Status.PID = os.Getpid()
	}
}

// Server answers the management protocol.
type Server struct {
	opt   Options
	http  *http.Server
	slots chan struct{} // one for each running call
	// streams has one for each of them that answers with many lines, and large one for each
	// whose request is large.
	streams, large chan struct{}
	leaving        context.Context // ended when no more calls are taken
	leave          context.CancelFunc
	stop           context.CancelCauseFunc
}

var errStopping = fmt.Errorf("%w: ovs up is stopping", ErrBusy)

// NewServer returns a server that does not listen yet.
func NewServer(opt Options) *Server {
	opt.ensureDefaults()
	s := &Server{opt: opt, slots: make(chan struct{}, opt.Calls), streams: make(chan struct{}, streamCalls), large: make(chan struct{}, largeCalls)}
	s.leaving, s.leave = context.WithCancel(context.Background())
	base, stop := context.WithCancelCause(context.Background())
	s.stop = stop
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: opt.BodyTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(opt.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	return s
}

// Serve answers what arrives on l until Shutdown, and then returns nil. It takes at most
// twice as many connections as calls at once. Further connections wait in l's queue.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(newLimitListener(l, 2*s.opt.Calls))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown takes no more calls, and waits for those that run. If ctx ends before they
// do, it cancels them and waits for them to give up.
func (s *Server) Shutdown(ctx context.Context) error {
	s.leave() // a watch would go on for ever
	if s.http.Shutdown(ctx) == nil {
		return nil
	}
	s.stop(errStopping)
	// A canceled call ends soon, but not at once.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.http.Shutdown(last); err != nil {
		s.http.Close()
		return fmt.Errorf("control: calls did not end: %w", err)
	}
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	handle(s, mux, "status", func(context.Context, struct{}, progressFunc) (Status, error) {
		return s.status(), nil
	})
	s.vdiskRoutes(mux)
	s.snapshotRoutes(mux)
	s.albaRoutes(mux)
	s.deviceRoutes(mux)
	s.clusterRoutes(mux)
	s.arakoonRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		newAnswer(w).fail(fmt.Errorf("%w: this release has no call %s %s: client and ovs up differ in release", ErrInvalid, r.Method, r.URL.Path))
	})
	return mux
}

// status is what the server tells about itself now.
func (s *Server) status() Status {
	now := s.opt.Status
	if s.opt.Cluster != nil {
		self := s.opt.Cluster.Self()
		now.Cluster = &self
	}
	return now
}

// refuses returns why this server has nothing that a call is about, nil if it has.
func (s *Server) refuses(call string) error {
	if strings.HasPrefix(call, "vdisk/") || strings.HasPrefix(call, "alba/") {
		return s.opt.Refuse
	}
	return nil
}

// shown is what is logged of a request: nothing of keys and values, which may be secrets, and
// of passphrases.
func shown(call string, request any) any {
	if strings.HasPrefix(call, "arakoon/") || call == "ca/open" || call == "ca/reseal" {
		return "not shown"
	}
	return request
}

// done is the result of a call that has none.
type done struct{}

type progressFunc = func(done, total int64)

// handle routes one call. It bounds the call, reads its request, and answers.
func handle[Request, Result any](s *Server, mux *http.ServeMux, call string, fn func(context.Context, Request, progressFunc) (Result, error)) {
	answering(s, mux, call, func(ctx context.Context, r Request, out *answer) (Result, error) { return fn(ctx, r, out.progress) })
}

// answering routes one call to whoever writes its answer.
func answering[Request, Result any](s *Server, mux *http.ServeMux, call string, fn func(context.Context, Request, *answer) (Result, error)) {
	mux.HandleFunc("POST /"+Version+"/"+call, func(w http.ResponseWriter, r *http.Request) {
		out := newAnswer(w)
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			out.fail(fmt.Errorf("%w: %d management calls are running; try again later", ErrBusy, s.opt.Calls))
			return
		}
		if err := s.refuses(call); err != nil {
			out.fail(err)
			return
		}
		var request Request
		most, free, err := s.requestMost(call, r)
		if err != nil {
			out.fail(err)
			return
		}
		defer free()
		if err := s.readRequest(w, r, most, &request); err != nil {
			out.fail(err)
			return
		}
		begin := time.Now()
		result, err := fn(r.Context(), request, out)
		s.opt.Logger.Debug("call", "call", call, "request", shown(call, request), "took", time.Since(begin), "err", err)
		if err != nil {
			if cause := context.Cause(r.Context()); errors.Is(err, context.Canceled) && errors.Is(cause, errStopping) {
				err = cause
			}
			out.fail(err)
			return
		}
		out.finish(result)
	})
}

// requestMost is how many bytes a request may have. Few may be large at once; others wait
// for their turn, as a client that is refused before it has sent all may not see why.
func (s *Server) requestMost(call string, r *http.Request) (most int64, free func(), err error) {
	if call != "arakoon/write" || r.ContentLength >= 0 && r.ContentLength <= RequestMax {
		return RequestMax, func() {}, nil
	}
	select {
	case s.large <- struct{}{}:
		return KeyRequestMax, func() { <-s.large }, nil
	case <-s.leaving.Done():
		return 0, nil, errStopping
	case <-time.After(s.opt.BodyTimeout):
		return 0, nil, fmt.Errorf("%w: %d calls with large requests are running; try again later", ErrBusy, cap(s.large))
	}
}

// readRequest reads a whole body, bounded in bytes and time. Then it takes the deadline
// off again: net/http reads on while the call runs, to see whether the client goes.
func (s *Server) readRequest(w http.ResponseWriter, r *http.Request, most int64, into any) error {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(s.opt.BodyTimeout)); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return fmt.Errorf("%w: read request: %w", ErrInvalid, err)
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if !utf8.Valid(body) { // which Unmarshal would make another name of
		return fmt.Errorf("%w: request is not UTF-8", ErrInvalid)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%w: request: %w", ErrInvalid, err)
	}
	return nil
}

// answer writes the lines of one answer.
type answer struct {
	w  http.ResponseWriter
	mu struct {
		sync.Mutex
		begun bool // a line was written: the status is out
		ended bool
		last  time.Time
	}
}

// line is one line of an answer; exactly one field is set.
type line[Result any] struct {
	Progress *Progress  `json:"progress,omitempty"`
	Error    *wireError `json:"error,omitempty"`
	Result   *Result    `json:"result,omitempty"`
}

// progressEvery is how often progress is sent at most: a slow client must not slow the
// call.
const progressEvery = 100 * time.Millisecond

// writeTimeout is how long a client may leave an answer unread.
const writeTimeout = 10 * time.Second

func newAnswer(w http.ResponseWriter) *answer {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &answer{w: w}
}

func (a *answer) progress(done, total int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.mu.ended || a.mu.begun && now.Sub(a.mu.last) < progressEvery {
		return
	}
	a.mu.last = now
	a.writeLocked(http.StatusOK, line[struct{}]{Progress: &Progress{Done: done, Total: total}})
}

func (a *answer) fail(err error) {
	wire, status := toWire(err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.ended = true
	a.writeLocked(status, line[struct{}]{Error: &wire})
}

func (a *answer) finish(result any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.ended = true
	a.writeLocked(http.StatusOK, line[any]{Result: &result})
}

// writeLocked writes one line. It ignores a client that is gone or does not read: the
// context of the call tells of that.
func (a *answer) writeLocked(status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		wire, _ := toWire(err)
		b, _ = json.Marshal(line[struct{}]{Error: &wire})
	}
	control := http.NewResponseController(a.w)
	_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if !a.mu.begun {
		a.mu.begun = true
		a.w.WriteHeader(status)
	}
	if _, err := a.w.Write(append(b, '\n')); err == nil {
		_ = control.Flush()
	}
}
