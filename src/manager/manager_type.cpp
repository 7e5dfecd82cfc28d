#include <multihull/detail/manager_type.hpp>

#include <algorithm>

namespace multihull::detail {

namespace {

constexpr const char* kBuiltins = "builtins";

std::string in_words(const std::string& name, const std::vector<Object>& args) {
    std::string text = name;
    for (std::size_t i = 0; i < args.size(); ++i) text += (i == 0 ? ": " : ", ") + args[i].to_string();
    return text;
}

}    // namespace

PythonException::PythonException(std::string module, std::string name, std::vector<Object> args)
    : Error(in_words(name, args)),
      raised_(std::make_shared<const Raised>(Raised{std::move(module), std::move(name), std::move(args)})) {}

PythonException::PythonException(std::string name, std::string sentence)
    : PythonException(kBuiltins, std::move(name), std::vector<Object>{Object(std::move(sentence))}) {}

std::vector<Object*> Call::bind(std::initializer_list<std::string_view> parameters, std::size_t required) {
    const std::string name = std::string(method) + "()";
    if (args.size() > parameters.size()) {
        throw PythonException("TypeError", name + " takes at most " + std::to_string(parameters.size()) +
                                               " arguments (" + std::to_string(args.size()) + " given)");
    }
    std::vector<Object*> bound(parameters.size(), nullptr);
    for (std::size_t i = 0; i < args.size(); ++i) bound[i] = &args[i];
    if (!kwargs.is_none()) {
        for (const Object& keyword : kwargs) {
            const auto parameter = std::ranges::find(parameters, std::string_view(keyword.as_str()));
            if (parameter == parameters.end()) {
                throw PythonException("TypeError",
                                      name + " got an unexpected keyword argument '" + keyword.as_str() + "'");
            }
            Object*& place = bound[static_cast<std::size_t>(parameter - parameters.begin())];
            if (place != nullptr) {
                throw PythonException("TypeError",
                                      name + " got multiple values for argument '" + keyword.as_str() + "'");
            }
            place = &kwargs.at(keyword);
        }
    }
    for (std::size_t i = 0; i < required; ++i) {
        if (bound[i] == nullptr) {
            throw PythonException("TypeError",
                                  name + " missing required argument: '" + std::string(parameters.begin()[i]) + "'");
        }
    }
    return bound;
}

void Referent::caller_ended(const Caller&, bool) {}

void Referent::let_go(std::uint64_t) {}

void Referent::visit(const std::function<void(const Object&)>&) {}

void ManagerTypes::add(ManagerType type) {
    std::string name = type.name;
    types_.insert_or_assign(std::move(name), std::move(type));
}

void ManagerTypes::add_function(std::string name, UpdateFunction function) {
    functions_.insert_or_assign(std::move(name), std::move(function));
}

const ManagerType* ManagerTypes::find(std::string_view name) const {
    const auto found = types_.find(name);
    return found == types_.end() ? nullptr : &found->second;
}

const UpdateFunction* ManagerTypes::find_function(std::string_view name) const {
    const auto found = functions_.find(name);
    return found == functions_.end() ? nullptr : &found->second;
}

}    // namespace multihull::detail
