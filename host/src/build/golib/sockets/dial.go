// Package sockets connects a service to the endpoints that its manifest grants it (`grants = { tcp = ["host:port"] }`).
//
// For WASI 0.1, the package net has no connections to outside. Drivers and clients take functions that do what its
// own would; those here are of the types that they ask for:
//
//	config.LookupFunc, config.DialFunc = sockets.LookupHost, sockets.DialContext    // pgx
//	&http.Transport{DialContext: sockets.DialContext}                               // net/http
//	&redis.Options{Dialer: sockets.DialContext}                                     // go-redis
package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	instance "wasmbay/imports/wasi_sockets_instance_network"
	lookup "wasmbay/imports/wasi_sockets_ip_name_lookup"
	wasi "wasmbay/imports/wasi_sockets_network"
	tcp "wasmbay/imports/wasi_sockets_tcp"
	create "wasmbay/imports/wasi_sockets_tcp_create_socket"
)

// Dial is DialContext without a context.
func Dial(network, address string) (net.Conn, error) {
	return DialContext(context.Background(), network, address)
}

// DialContext connects to "host:port", as the method of net.Dialer does. The network is "tcp", "tcp4" or "tcp6", the port
// a number. The context ends the attempt; the connection goes on without it.
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	failed := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%s: %w", address, err)}
	}
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return failed(net.UnknownNetworkError(network))
	}
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return failed(err)
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return failed(fmt.Errorf("the port %q is no number", number))
	}
	addresses, err := LookupHost(ctx, host)
	if err != nil {
		return failed(err)
	}
	var errs []error
	for _, address := range addresses {
		ip, err := netip.ParseAddr(address)
		if err != nil {
			return failed(err)
		}
		if ip = ip.Unmap(); network == "tcp4" && !ip.Is4() || network == "tcp6" && ip.Is4() {
			continue
		}
		conn, err := connect(ctx, netip.AddrPortFrom(ip, uint16(port)))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return failed(errors.New("the host has no address of this network"))
	}
	return failed(errors.Join(errs...))
}

// LookupHost returns the addresses of a host, as the method of net.Resolver does. The manifest has to grant an endpoint of
// that name.
func LookupHost(ctx context.Context, host string) ([]string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{host}, nil
	}
	network := instance.InstanceNetwork()
	defer network.Drop()
	begun := lookup.ResolveAddresses(network, host)
	if begun.IsErr() {
		return nil, notFound(host, begun.Err())
	}
	stream := begun.Ok()
	defer stream.Drop()
	var found []string
	for {
		next := stream.ResolveNextAddress()
		switch {
		case next.IsErr() && next.Err() == wasi.ErrorCode_WouldBlock:
			if err := wait(stream.Subscribe(), until(ctx)); err != nil {
				return nil, err
			}
		case next.IsErr():
			return nil, notFound(host, next.Err())
		case next.Ok().IsSome():
			found = append(found, fromWasi(next.Ok().Some()).String())
		case len(found) == 0:
			return nil, notFound(host, wasi.ErrorCode_NameUnresolvable)
		default:
			return found, nil
		}
	}
}

// connect makes a connection to one address.
func connect(ctx context.Context, remote netip.AddrPort) (*Conn, error) {
	family := wasi.IpAddressFamily_Ipv4
	if remote.Addr().Is6() {
		family = wasi.IpAddressFamily_Ipv6
	}
	created := create.CreateTcpSocket(family)
	if created.IsErr() {
		return nil, fromCode(created.Err())
	}
	socket := created.Ok()
	conn, err := finish(ctx, socket, remote)
	if err != nil {
		socket.Drop()
	}
	return conn, err
}

func finish(ctx context.Context, socket *tcp.TcpSocket, remote netip.AddrPort) (*Conn, error) {
	network := instance.InstanceNetwork()
	defer network.Drop()
	if begun := socket.StartConnect(network, toWasi(remote)); begun.IsErr() {
		return nil, fromCode(begun.Err())
	}
	for {
		connected := socket.FinishConnect()
		if connected.IsOk() {
			streams := connected.Ok()
			return open(socket, streams.F0, streams.F1, remote), nil
		}
		if connected.Err() != wasi.ErrorCode_WouldBlock {
			return nil, fromCode(connected.Err())
		}
		if err := wait(socket.Subscribe(), until(ctx)); err != nil {
			return nil, err
		}
	}
}

// until ends a wait with the context.
func until(ctx context.Context) func() (limit, error) {
	return func() (limit, error) {
		deadline, _ := ctx.Deadline()
		return limit(deadline), ctx.Err()
	}
}

func notFound(host string, code wasi.ErrorCode) error {
	if code == wasi.ErrorCode_AccessDenied {
		return fmt.Errorf("%s: %w", host, fromCode(code))
	}
	missing := code == wasi.ErrorCode_NameUnresolvable
	temporary := code == wasi.ErrorCode_TemporaryResolverFailure || code == wasi.ErrorCode_Timeout
	why := fromCode(code).Error()
	return &net.DNSError{Err: why, Name: host, IsNotFound: missing, IsTemporary: temporary}
}

// fromCode is the error that package net would have.
func fromCode(code wasi.ErrorCode) error {
	switch code {
	case wasi.ErrorCode_AccessDenied:
		return fmt.Errorf("%w: no endpoint in the service's `grants`", syscall.EACCES)
	case wasi.ErrorCode_NotSupported:
		return syscall.ENOTSUP
	case wasi.ErrorCode_InvalidArgument:
		return syscall.EINVAL
	case wasi.ErrorCode_Timeout:
		return syscall.ETIMEDOUT
	case wasi.ErrorCode_NewSocketLimit:
		return syscall.EMFILE
	case wasi.ErrorCode_RemoteUnreachable:
		return syscall.EHOSTUNREACH
	case wasi.ErrorCode_ConnectionRefused:
		return syscall.ECONNREFUSED
	case wasi.ErrorCode_ConnectionReset:
		return syscall.ECONNRESET
	case wasi.ErrorCode_ConnectionAborted:
		return syscall.ECONNABORTED
	case wasi.ErrorCode_NameUnresolvable:
		return errors.New("no such host")
	case wasi.ErrorCode_TemporaryResolverFailure, wasi.ErrorCode_PermanentResolverFailure:
		return errors.New("the name could not be looked up")
	default:
		return fmt.Errorf("error %d of wasi:sockets", code)
	}
}
