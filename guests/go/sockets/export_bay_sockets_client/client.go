// Package export_bay_sockets_client uses the package sockets as a driver would, for tests of what is granted.
package export_bay_sockets_client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"wasmbay/sockets"

	. "go.bytecodealliance.org/pkg/wit/types"
)

// How long the other side may take.
const patience = time.Second

// Tcp sends a line and returns the one that comes back, which a goroutine waits for. Meanwhile another one counts.
func Tcp(endpoint string, line string) Result[string, string] {
	conn, err := sockets.Dial("tcp", endpoint)
	if err != nil {
		return Err[string](words(err))
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return Err[string](words(err))
	}
	type outcome struct {
		answer string
		err    error
	}
	answered := make(chan outcome)
	go func() {
		if _, err := fmt.Fprintln(conn, line); err != nil {
			answered <- outcome{err: err}
			return
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		answered <- outcome{strings.TrimSpace(answer), err}
	}()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for ticks := 0; ; {
		select {
		case <-ticker.C:
			ticks++
		case outcome := <-answered:
			switch {
			case errors.Is(outcome.err, os.ErrDeadlineExceeded):
				return Err[string](fmt.Sprintf("TimedOut after %d ticks: %v", ticks, outcome.err))
			case outcome.err == io.EOF:
				return Err[string]("UnexpectedEof")
			case outcome.err != nil:
				return Err[string](words(outcome.err))
			}
			return Ok[string, string](outcome.answer)
		}
	}
}

// Udp is not what the package has.
func Udp(endpoint string, text string) Result[string, string] {
	_, err := sockets.Dial("udp", endpoint)
	return Err[string](words(err))
}

// Listen is not what the package has, and package net only listens within the program.
func Listen() Result[Unit, string] {
	return Err[Unit](words(syscall.EACCES))
}

// LookUp returns the addresses of a name.
func LookUp(name string) Result[[]string, string] {
	addresses, err := sockets.LookupHost(context.Background(), name)
	if err != nil {
		return Err[[]string](words(err))
	}
	return Ok[[]string, string](addresses)
}

// words begins with the kind of the error, as the guest in Rust does.
func words(err error) string {
	var unknown net.UnknownNetworkError
	switch {
	case errors.Is(err, syscall.EACCES):
		return "PermissionDenied: " + err.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "ConnectionRefused: " + err.Error()
	case errors.As(err, &unknown):
		return "Unsupported: " + err.Error()
	}
	return err.Error()
}
