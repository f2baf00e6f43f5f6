package wire

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dialled is a listener of pipes, and a Redialer that comes to it, or fails for as long as
// fault is set. All of it is in a bubble of synctest.
type dialled struct {
	*Redialer
	l        *pipes
	mu       sync.Mutex
	fault    error
	attempts []time.Time
	went     []error
}

func (d *dialled) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = err
}

func (d *dialled) tried() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]time.Time(nil), d.attempts...)
}

func redial(t *testing.T, fault error) *dialled {
	t.Helper()
	d := &dialled{l: newPipes(), fault: fault}
	var err error
	d.Redialer, err = NewRedialer(RedialOptions{
		First: 50 * time.Millisecond, Most: 5 * time.Second,
		Target: func(context.Context) (DialOptions, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.attempts = append(d.attempts, time.Now())
			o := options(d.l)
			o.Dial = d.l.dial
			return o, d.fault
		},
		Down: func(err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.went = append(d.went, err)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

var errAway = errors.New("away")

// While a peer is away, attempts come at First doubled up to Most, and never faster.
func TestRedialBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redial(t, errAway)
		time.Sleep(time.Minute)
		at := d.tried()
		for i := 1; i < len(at); i++ {
			whole := min(50*time.Millisecond<<min(i-1, 20), 5*time.Second)
			if gap := at[i].Sub(at[i-1]); gap < whole/2 || gap > whole+time.Nanosecond {
				t.Errorf("attempt %d came %v after the one before; from a half to the whole of %v it should be", i, gap, whole)
			}
		}
		if len(at) < 17 || len(at) > 40 {
			t.Errorf("%d attempts in a minute", len(at))
		}
		if _, err := d.Call(t.Context(), Request{}); !errors.Is(err, ErrNotSent) || !errors.Is(err, errAway) {
			t.Errorf("a call without a connection: %v", err)
		}
		for range 1000 { // a peer that is heard of often must not be dialled without pause
			d.Hurry()
			time.Sleep(time.Millisecond)
		}
		if n := len(d.tried()) - len(at); n < 5 || n > 200 {
			t.Errorf("%d attempts in a second of hurry", n)
		}
	})
}

// A peer that is away is not dialled all the time because it is asked for all the time. One
// that was left in peace, and is heard of, is dialled at once.
func TestHurryBacksOffToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redial(t, errAway)
		for range 6000 {
			d.Hurry()
			time.Sleep(10 * time.Millisecond)
		}
		at := d.tried()
		if n := len(at); n < 100 || n > 300 {
			t.Errorf("%d attempts in a minute of hurry", n)
		}
		for i := len(at) - 50; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap < 250*time.Millisecond || gap > 520*time.Millisecond {
				t.Errorf("%v between two attempts that were hurried", gap)
			}
		}
		time.Sleep(time.Minute)
		n := len(d.tried())
		time.Sleep(100 * time.Millisecond)
		if len(d.tried()) > n { // one has just been made
			time.Sleep(time.Second)
			n = len(d.tried())
		}
		d.Hurry()
		time.Sleep(50 * time.Millisecond)
		if got := len(d.tried()); got != n+1 {
			t.Errorf("%d attempts at once after the peer was heard of", got-n)
		}
	})
}

// A peer that accepts and hangs up is dialled with back-off, too.
func TestRedialOfAPeerThatHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redial(t, nil)
		so := ServerOptions{Services: map[string]*Service{"ovs-kv": {Handler: HandlerFunc(echo)}}}
		s := serve(t, d.l, so, nil)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			s.Disconnect(func(*Peer) bool { return true }, errAway)
		}
		if n := len(d.tried()); n > 45 {
			t.Errorf("%d attempts in a minute", n)
		}
	})
}

// A call that waits is sent once the peer is there, over whichever connection.
func TestCallWaitsForAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redial(t, errAway)
		serve(t, d.l, ServerOptions{}, echo)
		got := make(chan error, 1)
		go func() {
			r, err := d.CallWait(t.Context(), Request{Body: Wrap(nil, []byte("x"))})
			if err == nil {
				r.Release()
			}
			got <- err
		}()
		time.Sleep(time.Minute)
		select {
		case err := <-got:
			t.Fatalf("answered without a connection: %v", err)
		default:
		}
		d.fail(nil)
		if err := <-got; err != nil {
			t.Error(err)
		}
		r, err := d.Call(t.Context(), Request{})
		if err != nil {
			t.Error(err)
		}
		r.Release()
	})
}

// A wait ends with its context, and with the Redialer.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redial(t, errAway)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		freed := false
		_, err := d.CallWait(ctx, Request{Body: Wrap(func() { freed = true }, []byte("x"))})
		if !errors.Is(err, ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errAway) || !freed {
			t.Errorf("after its deadline: %v, body given back %v", err, freed)
		}
		got := make(chan error, 1)
		go func() { _, err := d.Wait(context.Background()); got <- err }()
		synctest.Wait()
		d.Close()
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A server that is closing answers what it has; what comes later goes to the next one.
func TestRedialLeavesAServerThatIsClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redial(t, nil)
		release, inside := make(chan struct{}), make(chan struct{})
		slow, err := NewServer(ServerOptions{Identity: testIdentity, Services: map[string]*Service{"ovs-kv": {Handler: HandlerFunc(func(context.Context, *Incoming) Answer {
			close(inside)
			<-release
			return Answer{Status: 300}
		})}}})
		if err != nil {
			t.Fatal(err)
		}
		first := d.l
		go func() { _ = slow.Serve(first) }()
		got := make(chan error, 1)
		go func() {
			r, err := d.CallWait(t.Context(), Request{})
			if err == nil && r.Status != 300 {
				err = errors.New("another's answer")
			}
			got <- err
		}()
		<-inside
		d.mu.Lock()
		d.l = newPipes()
		d.mu.Unlock()
		serve(t, d.l, ServerOptions{}, echo)
		closed := make(chan error, 1)
		go func() { closed <- slow.Close(context.Background()) }()
		synctest.Wait()
		r, err := d.CallWait(t.Context(), Request{})
		if err != nil || r.Status != 0 {
			t.Fatalf("beside the server that is closing: %v", err)
		}
		close(release)
		if err := errors.Join(<-got, <-closed); err != nil {
			t.Errorf("what was in flight: %v", err)
		}
	})
}

// What left whole is never sent again: its outcome is unknown, and only its caller knows
// whether it may be repeated.
func TestCallWaitSendsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := redial(t, nil)
		var served int
		var s *Server
		s = serve(t, d.l, ServerOptions{}, func(ctx context.Context, _ *Incoming) Answer {
			served++
			s.Disconnect(func(*Peer) bool { return true }, errAway)
			<-ctx.Done()
			return Answer{}
		})
		if _, err := d.CallWait(t.Context(), Request{}); !errors.Is(err, ErrOutcomeUnknown) || served != 1 {
			t.Errorf("served %d times: %v", served, err)
		}
	})
}

// Another target is taken up, also if it is named while the old one is being dialled.
func TestRenewTakesTheOtherTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newPipes(), newPipes()
		host := func(l net.Listener) Identity {
			id := testIdentity()
			s := serve(t, l, ServerOptions{Identity: func() Identity { return id }}, echo)
			_ = s
			return id
		}
		host(one)
		want := host(two)
		var mu sync.Mutex
		at, asked := one, make(chan struct{}, 100)
		hold := make(chan struct{})
		r, err := NewRedialer(RedialOptions{Target: func(context.Context) (DialOptions, error) {
			mu.Lock()
			l := at
			mu.Unlock()
			o := options(l)
			o.Dial = func(ctx context.Context) (net.Conn, error) {
				asked <- struct{}{}
				<-hold
				return l.dial(ctx)
			}
			return o, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		<-asked
		mu.Lock()
		at = two
		mu.Unlock()
		r.Renew(errors.New("it has moved"))
		close(hold)
		time.Sleep(time.Second)
		if c, err := r.Wait(t.Context()); err != nil || c.Peer().Host != want.Host {
			t.Errorf("still the old target: %v", err)
		}
		r.Renew(errors.New("again"))
		time.Sleep(time.Second)
		if c, err := r.Wait(t.Context()); err != nil || c.Peer().Host != want.Host {
			t.Errorf("after another Renew: %v", err)
		}
	})
}

func TestRedialOptions(t *testing.T) {
	if _, err := NewRedialer(RedialOptions{}); err == nil {
		t.Error("a Redialer without a target")
	}
	if _, err := NewRedialer(RedialOptions{Target: func(context.Context) (DialOptions, error) { return DialOptions{}, nil }, First: time.Minute, Most: time.Second}); err == nil {
		t.Error("a longest wait below the first")
	}
}
