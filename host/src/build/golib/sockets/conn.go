package sockets

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"go.bytecodealliance.org/pkg/wit/runtime"

	streams "wasmbay/imports/wasi_io_streams"
	tcp "wasmbay/imports/wasi_sockets_tcp"
)

// The most that one call of the host reads.
const mostRead = 64 << 10

// Conn is a connection that Dial has made.
type Conn struct {
	socket *tcp.TcpSocket
	input  *streams.InputStream
	output *streams.OutputStream
	remote netip.AddrPort
	local  net.Addr
	// One read and one write at a time: they are whole.
	reading, writing sync.Mutex

	mutex                       sync.Mutex
	readDeadline, writeDeadline time.Time
	closed                      bool
	// Calls that use the streams: the last one drops them after Close.
	users int
}

var _ net.Conn = (*Conn)(nil)

// What the host has of a connection has to be dropped in an order of its own, which the collector does not know. So none
// is lost to it: who does not close a connection keeps it until the instance ends.
var (
	connsMutex sync.Mutex
	conns      = map[*Conn]struct{}{}
)

func open(socket *tcp.TcpSocket, input *streams.InputStream, output *streams.OutputStream, remote netip.AddrPort) *Conn {
	// As package net does. Without it, the connection works all the same.
	socket.SetKeepAliveEnabled(true)
	conn := &Conn{socket: socket, input: input, output: output, remote: remote, local: &net.TCPAddr{}}
	if local := socket.LocalAddress(); local.IsOk() {
		conn.local = net.TCPAddrFromAddrPort(fromWasiSocket(local.Ok()))
	}
	connsMutex.Lock()
	defer connsMutex.Unlock()
	conns[conn] = struct{}{}
	return conn
}

// Read waits for what the other side sends. Its end is io.EOF.
func (c *Conn) Read(into []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if err := c.enter(); err != nil {
		return 0, c.failed("read", err)
	}
	defer c.leave()
	if len(into) == 0 {
		return 0, nil
	}
	for {
		if _, err := c.readLimit(); err != nil {
			return 0, c.failed("read", err)
		}
		read := c.input.Read(uint64(min(len(into), mostRead)))
		if read.IsErr() {
			return 0, c.failed("read", fromStream(read.Err(), io.EOF))
		}
		if bytes := read.Ok(); len(bytes) > 0 {
			count := copy(into, bytes)
			// What the host has written is not needed any more.
			runtime.Unpin()
			return count, nil
		}
		if err := wait(c.input.Subscribe(), c.readLimit); err != nil {
			return 0, c.failed("read", err)
		}
	}
}

// Write returns when all of it is with the system of the host.
func (c *Conn) Write(bytes []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.enter(); err != nil {
		return 0, c.failed("write", err)
	}
	defer c.leave()
	written := 0
	for {
		if _, err := c.writeLimit(); err != nil {
			return written, c.failed("write", err)
		}
		room := c.output.CheckWrite()
		if room.IsErr() {
			return written, c.failed("write", fromStream(room.Err(), syscall.EPIPE))
		}
		count := min(uint64(len(bytes)-written), room.Ok())
		switch {
		case room.Ok() == 0:
			// It is still on its way.
			if err := wait(c.output.Subscribe(), c.writeLimit); err != nil {
				return written, c.failed("write", err)
			}
		case count == 0:
			return written, nil
		default:
			part := bytes[written : written+int(count)]
			if sent := c.output.Write(part); sent.IsErr() {
				return written, c.failed("write", fromStream(sent.Err(), syscall.EPIPE))
			}
			written += int(count)
		}
	}
}

// Close ends the connection, and what reads or writes with an error.
func (c *Conn) Close() error {
	if err := c.enter(); err != nil {
		return c.failed("close", err)
	}
	c.mutex.Lock()
	c.closed = true
	c.mutex.Unlock()
	c.leave()
	return nil
}

// CloseWrite has the other side read the end of what was written.
func (c *Conn) CloseWrite() error {
	if err := c.enter(); err != nil {
		return c.failed("close", err)
	}
	defer c.leave()
	if shut := c.socket.Shutdown(tcp.ShutdownType_Send); shut.IsErr() {
		return c.failed("close", fromCode(shut.Err()))
	}
	return nil
}

// LocalAddr is the address of this side, at the host.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the address of the other side.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(at time.Time) error {
	return errors.Join(c.SetReadDeadline(at), c.SetWriteDeadline(at))
}

// SetReadDeadline ends reads with os.ErrDeadlineExceeded from that time on, also one that waits. Zero is never.
func (c *Conn) SetReadDeadline(at time.Time) error { return c.set(&c.readDeadline, at) }

// SetWriteDeadline is the same for writes.
func (c *Conn) SetWriteDeadline(at time.Time) error { return c.set(&c.writeDeadline, at) }

func (c *Conn) set(deadline *time.Time, at time.Time) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return c.failed("set", net.ErrClosed)
	}
	*deadline = at
	return nil
}

func (c *Conn) readLimit() (limit, error) { return c.limit(&c.readDeadline) }

func (c *Conn) writeLimit() (limit, error) { return c.limit(&c.writeDeadline) }

func (c *Conn) limit(deadline *time.Time) (limit, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	switch {
	case c.closed:
		return limit{}, net.ErrClosed
	case !deadline.IsZero() && !time.Now().Before(*deadline):
		return limit{}, os.ErrDeadlineExceeded
	}
	return limit(*deadline), nil
}

func (c *Conn) enter() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.users++
	return nil
}

func (c *Conn) leave() {
	c.mutex.Lock()
	c.users--
	last := c.closed && c.users == 0
	c.mutex.Unlock()
	if !last {
		return
	}
	connsMutex.Lock()
	delete(conns, c)
	connsMutex.Unlock()
	c.input.Drop()
	c.output.Drop()
	c.socket.Drop()
}

func (c *Conn) failed(op string, err error) error {
	if err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.RemoteAddr(), Err: err}
}

// fromStream is the error of a stream; one that ended has the one that is given.
func fromStream(failure streams.StreamError, ended error) error {
	if failure.Tag() == streams.StreamError_Closed {
		return ended
	}
	cause := failure.LastOperationFailed()
	defer cause.Drop()
	return errors.New(cause.ToDebugString())
}
