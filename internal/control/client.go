package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"time"
	"unicode/utf8"
)

// ErrNotRunning is matched by what a Client returns when no `ovs up` serves
// the data directory.
var ErrNotRunning = errors.New("ovs up is not running")

// Client speaks to the `ovs up` of one data directory. Its methods are those of Host,
// but the vDisks that they return also say where they are served. It is safe for
// concurrent use. Errors match the kinds of this package. When the ctx of a call ends
// the server cancels the call.
type Client struct {
	data   string
	socket string
	http   *http.Client
}

// NewClient returns a client. It does not connect.
func NewClient(data string) *Client {
	socket := filepath.Join(data, SocketName)
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &Client{
		data:   data,
		socket: socket,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				address, done, err := SocketAddress(socket)
				if err != nil {
					return nil, err
				}
				defer done()
				return dialer.DialContext(ctx, "unix", address)
			},
			DisableKeepAlives: true, // one call a process, as a rule
		}},
	}
}

// Status asks the server of the directory about itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, "status", struct{}{}, nil)
}

// call sends one request to the server of the directory, and reads its answer to the
// end.
func call[Result any](ctx context.Context, c *Client, name string, request any, progress func(done, total int64)) (Result, error) {
	if err := c.follow(ctx); err != nil {
		var none Result
		return none, err
	}
	return exchange[Result](ctx, c, name, request, progress)
}

// checkText refuses a request that has bytes which are no UTF-8. JSON would replace
// them, and the call would act on whatever has the name that results.
func checkText(v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return fmt.Errorf("%.128q is not UTF-8: %w", v.String(), ErrInvalid)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if err := checkText(v.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.String {
			return nil
		}
		for i := range v.Len() {
			if err := checkText(v.Index(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// post sends a request and returns the answer, whose body the caller closes.
func post(ctx context.Context, c *Client, name string, request any) (*http.Response, error) {
	if err := checkText(reflect.ValueOf(request)); err != nil {
		return nil, err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ovs/"+Version+"/"+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return response, nil
}

func exchange[Result any](ctx context.Context, c *Client, name string, request any, progress func(done, total int64)) (Result, error) {
	var none Result
	response, err := post(ctx, c, name, request)
	if err != nil {
		return none, err
	}
	defer response.Body.Close()
	lines := bufio.NewReader(io.LimitReader(response.Body, responseMax))
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return none, c.cut(ctx, name, err)
		}
		var l line[Result]
		if err := json.Unmarshal(text, &l); err != nil {
			return none, fmt.Errorf("answer of ovs up on %s to %s: %w", c.socket, name, err)
		}
		switch {
		case l.Error != nil:
			return none, fromWire(*l.Error)
		case l.Result != nil:
			return *l.Result, nil
		case l.Progress != nil && progress != nil:
			progress(l.Progress.Done, l.Progress.Total)
		}
	}
}

// explain says what the error of a connection means.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		if to, err := os.Readlink(c.data); err == nil {
			if _, err := os.Stat(c.data); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w on %s, which is a symbolic link to %s, and nothing is there", ErrNotRunning, c.data, to)
			}
		}
		return c.notRunning()
	}
	var op *net.OpError // without the made-up URL that package http puts around it
	if errors.As(err, &op) {
		err = op
	}
	return fmt.Errorf("ovs up on %s: %w", c.socket, err)
}

func (c *Client) notRunning() error {
	return fmt.Errorf("%w on %s; start it with: ovs up --data %s", ErrNotRunning, c.data, c.data)
}

// follow makes sure that the server serves this directory, if its socket is elsewhere:
// in a copy of the directory the link leads to the server of the original.
func (c *Client) follow(ctx context.Context) error {
	if _, err := os.Readlink(c.socket); err != nil {
		return nil
	}
	status, err := exchange[Status](ctx, c, "status", struct{}{}, nil)
	if err != nil {
		return err
	}
	here, err := os.Stat(c.data)
	if err != nil {
		return err
	}
	if there, err := os.Stat(status.Data); err != nil || !os.SameFile(here, there) {
		return fmt.Errorf("%w (its socket leads to that of %s)", c.notRunning(), status.Data)
	}
	return nil
}

// cut is the error of an answer that has no end.
func (c *Client) cut(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("ovs up on %s ended during %s (%w): it may or may not have taken effect; look with ovs vdisk list", c.data, name, err)
}
