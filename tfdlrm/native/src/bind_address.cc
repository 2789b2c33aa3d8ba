// For processes that are started with this library in LD_PRELOAD: TensorFlow's server listens on every interface of a
// machine, whatever address it was given. Here its socket is bound to the one that TFDLRM_BIND names, as PORT ADDRESS.
// Without the variable, and for every other port, bind() is the system's.

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

namespace {

bool wanted(int* port, char* address) {
  const char* text = getenv("TFDLRM_BIND");
  return text != nullptr && sscanf(text, "%d %63s", port, address) == 2;
}

int refuse() {
  errno = EADDRNOTAVAIL;
  return -1;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int bind(int socket, const sockaddr* given, socklen_t length) {
  using Bind = int (*)(int, const sockaddr*, socklen_t);
  static const Bind system_bind = reinterpret_cast<Bind>(dlsym(RTLD_NEXT, "bind"));
  int port = 0;
  char address[64];
  if (given == nullptr || !wanted(&port, address)) return system_bind(socket, given, length);
  in_addr four;
  in6_addr six;
  const bool is_four = inet_pton(AF_INET, address, &four) == 1;
  if (!is_four && inet_pton(AF_INET6, address, &six) != 1) return refuse();
  if (given->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 to;
    memcpy(&to, given, sizeof to);
    if (ntohs(to.sin6_port) != port || !IN6_IS_ADDR_UNSPECIFIED(&to.sin6_addr)) return system_bind(socket, given, length);
    if (is_four) {  // an IPv4 address as an IPv6 one, ::ffff:a.b.c.d
      memset(&six, 0, sizeof six);
      six.s6_addr[10] = six.s6_addr[11] = 0xff;
      memcpy(&six.s6_addr[12], &four, sizeof four);
    }
    to.sin6_addr = six;
    return system_bind(socket, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  }
  if (given->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in to;
    memcpy(&to, given, sizeof to);
    if (ntohs(to.sin_port) != port || to.sin_addr.s_addr != htonl(INADDR_ANY)) return system_bind(socket, given, length);
    if (!is_four) return refuse();
    to.sin_addr = four;
    return system_bind(socket, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  }
  return system_bind(socket, given, length);
}
