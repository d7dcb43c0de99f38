package sockets

import (
	"net/netip"

	wasi "wasmbay/imports/wasi_sockets_network"
)

func toWasi(address netip.AddrPort) wasi.IpSocketAddress {
	if ip := address.Addr(); ip.Is4() {
		parts := ip.As4()
		return wasi.MakeIpSocketAddressIpv4(wasi.Ipv4SocketAddress{
			Port:    address.Port(),
			Address: wasi.Ipv4Address{F0: parts[0], F1: parts[1], F2: parts[2], F3: parts[3]},
		})
	}
	bytes := address.Addr().As16()
	part := func(at int) uint16 { return uint16(bytes[2*at])<<8 | uint16(bytes[2*at+1]) }
	return wasi.MakeIpSocketAddressIpv6(wasi.Ipv6SocketAddress{
		Port: address.Port(),
		Address: wasi.Ipv6Address{
			F0: part(0), F1: part(1), F2: part(2), F3: part(3), F4: part(4), F5: part(5), F6: part(6), F7: part(7),
		},
	})
}

func fromWasiSocket(address wasi.IpSocketAddress) netip.AddrPort {
	if address.Tag() == wasi.IpSocketAddress_Ipv4 {
		four := address.Ipv4()
		return netip.AddrPortFrom(fromWasi(wasi.MakeIpAddressIpv4(four.Address)), four.Port)
	}
	six := address.Ipv6()
	return netip.AddrPortFrom(fromWasi(wasi.MakeIpAddressIpv6(six.Address)), six.Port)
}

func fromWasi(address wasi.IpAddress) netip.Addr {
	if address.Tag() == wasi.IpAddress_Ipv4 {
		four := address.Ipv4()
		return netip.AddrFrom4([4]byte{four.F0, four.F1, four.F2, four.F3})
	}
	six := address.Ipv6()
	var bytes [16]byte
	for at, part := range []uint16{six.F0, six.F1, six.F2, six.F3, six.F4, six.F5, six.F6, six.F7} {
		bytes[2*at], bytes[2*at+1] = byte(part>>8), byte(part)
	}
	return netip.AddrFrom16(bytes)
}
